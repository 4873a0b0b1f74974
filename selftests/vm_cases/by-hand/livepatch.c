// SPDX-License-Identifier: GPL-2.0-only
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int show_by_hand(struct seq_file *file, void *unused)
{
	seq_puts(file, "by hand\n");
	return 0;
}

static struct klp_func functions[] = {
	{ .old_name = "cmdline_proc_show", .new_func = show_by_hand },
	{ }
};

static struct klp_object objects[] = {
	{ .funcs = functions },
	{ }
};

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init by_hand_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit by_hand_exit(void)
{
}

module_init(by_hand_init);
module_exit(by_hand_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
