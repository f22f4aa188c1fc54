// One misbehaviour per argument.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile int sink;

// deep uses up the stack that C keeps in linear memory, calls the engine's.
static int (*volatile deeper)(int);
static int deep(int n) {
	volatile char frame[64];
	frame[n & 63] = n;
	return deeper(n + 1) + frame[(n + 1) & 63];
}

static int calls(int n);
static int (*volatile again)(int) = calls;
static int calls(int n) { return again(n + 1) + n; }

int main(int argc, char **argv) {
	const char *how = argc > 1 ? argv[1] : "";
	printf("begin %s\n", how);
	fflush(stdout);
	if (!strcmp(how, "loop")) for (;;) sink++;
	if (!strcmp(how, "trap")) __builtin_trap();
	if (!strcmp(how, "divide")) { sink = 0; sink = 7 / sink; }
	if (!strcmp(how, "bounds")) sink = *(volatile int *)0xfffffff0;
	if (!strcmp(how, "deep")) { deeper = deep; return deep(0); }
	if (!strcmp(how, "calls")) return again(0);
	if (!strcmp(how, "abort")) abort();
	if (!strcmp(how, "memory")) {
		size_t total = 0;
		for (char *volatile p; (p = malloc(1 << 20)); total++) memset(p, 1, 1 << 20);
		printf("%zu MiB, then no more\n", total);
		return 3;
	}
	if (!strcmp(how, "flood")) {
		char line[100];
		memset(line, 'x', sizeof line);
		for (;;) write(1, line, sizeof line);
	}
	if (!strcmp(how, "flood-file")) {
		char line[1000];
		memset(line, 'y', sizeof line);
		int fd = open("/out/flood", O_WRONLY | O_CREAT, 0644);
		for (;;) { lseek(fd, 0, SEEK_SET); write(fd, line, sizeof line); }
	}
	if (!strcmp(how, "hole")) {
		int fd = open("/out/hole", O_WRONLY | O_CREAT, 0644);
		write(fd, "before", 6);
		pwrite(fd, "x", 1, 1LL << 40);
	}
	if (!strcmp(how, "tmp")) {
		char block[1 << 16] = {1};
		int fd = open("/tmp/big", O_WRONLY | O_CREAT, 0644), n = 0;
		while (write(fd, block, sizeof block) == sizeof block) n++;
		printf("%d blocks\n", n);
		return 4;
	}
	if (!strcmp(how, "names")) {
		int n = 0;
		for (char path[40];; n++) {
			snprintf(path, sizeof path, "/out/f%d", n);
			int fd = open(path, O_WRONLY | O_CREAT, 0644);
			if (fd < 0) break;
			close(fd);
		}
		printf("%d names\n", n);
		return 5;
	}
	if (!strcmp(how, "fill")) { // writes until somebody says no
		char block[1 << 16] = {1};
		int fd = open("/out/fill", O_WRONLY | O_CREAT, 0644);
		for (long n = atol(argv[2]); n > 0; n -= sizeof block) if (write(fd, block, sizeof block) != sizeof block) return 6;
		return 0;
	}
	return 0;
}
