/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the author of a livepatch may use, for kernels before 6.19, which have
 * a header of this name and with these macros of their own.
 *
 * Put it into the patched tree as include/linux/livepatch_helpers.h, with
 * `kbuild-klp patch --print-header`. A function that is named so in a source
 * file is called before or after the object that this is part of (vmlinux or a
 * module) is patched or unpatched; see struct klp_callbacks in linux/livepatch.h.
 * Each object has one of each kind.
 */
#ifndef _LINUX_LIVEPATCH_HELPERS_H
#define _LINUX_LIVEPATCH_HELPERS_H

#include <linux/livepatch.h>
#include <linux/stringify.h>

#ifdef MODULE
#define __KLP_OBJECT __KBUILD_MODNAME
#else
#define __KLP_OBJECT vmlinux
#endif

#define ___KLP_CALLBACK_NAME(kind, object) __klp_##kind##_callback_##object
#define __KLP_CALLBACK_NAME(kind, object) ___KLP_CALLBACK_NAME(kind, object)

/* The linker drops the section; kbuild-klp reads it in the object. */
#define __KLP_CALLBACK(kind, result, function)					\
	result (*__KLP_CALLBACK_NAME(kind, __KLP_OBJECT))(struct klp_object *)	\
	__used __section(".discard.klp_callback_ptrs") = function

#define KLP_PRE_PATCH_CALLBACK(function)	__KLP_CALLBACK(pre_patch, int, function)
#define KLP_POST_PATCH_CALLBACK(function)	__KLP_CALLBACK(post_patch, void, function)
#define KLP_PRE_UNPATCH_CALLBACK(function)	__KLP_CALLBACK(pre_unpatch, void, function)
#define KLP_POST_UNPATCH_CALLBACK(function)	__KLP_CALLBACK(post_unpatch, void, function)

#endif
