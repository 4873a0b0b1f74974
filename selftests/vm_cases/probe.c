// SPDX-License-Identifier: GPL-2.0-only
/* Makes the system calls that no command of busybox makes; see README. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOWHERE ((void *)4096)

/* Say how a system call failed. */
static int failure(long result)
{
	puts(result != -1 ? "no error" : errno == EFAULT ? "EFAULT" : strerror(errno));
	return 0;
}

/* Wait for none of some files, with a set that can be read but not written. */
static int select_nothing(int count)
{
	void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct timeval now = {};

	if (page == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	return failure(select(count, count == 8 ? page : NULL, NULL, NULL, &now));
}

/* Make pipes, and say of what kind their inode numbers are. */
static int pipes(long count)
{
	unsigned long most = 0;
	int odd = 0;

	while (count--) {
		struct stat status;
		int ends[2];

		if (pipe(ends) || fstat(ends[0], &status)) {
			perror("pipe");
			return 1;
		}
		close(ends[0]);
		close(ends[1]);
		odd |= status.st_ino & 1;
		if (status.st_ino > most)
			most = status.st_ino;
	}
	printf("%s, %s 20000\n", odd ? "odd and even" : "even", most > 20000 ? "above" : "below");
	return 0;
}

/* List a directory to an address that no memory can have. */
static int getdents(void)
{
	int directory = open(".", O_RDONLY | O_DIRECTORY);

	return failure(syscall(SYS_getdents64, directory, 0x00f0000000000000, 4096));
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "getdents"))
		return getdents();
	if (argc == 2 && !strcmp(argv[1], "sethostname"))
		return failure(sethostname(NOWHERE, 7));
	if (argc == 3 && !strcmp(argv[1], "select"))
		return select_nothing(atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "pipes"))
		return pipes(atol(argv[2]));
	return 2;
}
