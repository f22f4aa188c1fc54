// One item of a batch: the first byte of stdin says what it does, and all leave traces that a next one would find.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int getentropy(void *, size_t);

static int runs;
static volatile int sink;
static int (*volatile again)(int);
static int calls(int n) { return again(n + 1) + n; }

int main(int argc, char **argv) {
	static char text[1 << 16];
	char buf[64];
	struct timespec now;
	unsigned char r[8];
	size_t n = fread(text, 1, sizeof text - 1, stdin);
	char how = n ? text[0] : 0;
	int traces = access("/tmp/trace", F_OK) == 0 || access("/out/trace", F_OK) == 0;
	char *heap = malloc(1 << 18);
	for (int i = 0; i < 1 << 18; i += 997) traces += heap[i] != 0;
	clock_gettime(CLOCK_REALTIME, &now);
	getentropy(r, sizeof r);
	printf("run %d, %d traces, %ld.%09ld, ", ++runs, traces, (long)now.tv_sec, now.tv_nsec);
	for (int i = 0; i < 8; i++) printf("%02x", r[i]);
	for (int i = 1; i < argc; i++) printf(" %s", argv[i]);
	printf(": %s\n", n < 100 ? text : "long");
	memset(heap, 0xaa, 1 << 18);
	close(open("/tmp/trace", O_WRONLY | O_CREAT, 0644));
	switch (how) {
	case 't': __builtin_trap();
	case 'l': fflush(stdout); for (;;) sink++;
	case 'x': return 3;
	case 'f': for (;;) printf("0123456789abcdefghijklmnopqrstuvwxyz");
	case 'd': again = calls; return again(0);
	case 'm': {
		size_t total = 0;
		for (char *volatile p; (p = malloc(1 << 20)); total++) memset(p, 1, 1 << 20);
		printf("%zu MiB, then no more\n", total);
		return 4;
	}
	case 'o': {
		mkdir("/out/sub", 0755);
		FILE *f = fopen("/out/sub/copy", "w");
		fwrite(text, 1, n, f);
		fclose(f);
		close(open("/out/trace", O_WRONLY | O_CREAT, 0644));
		fprintf(stderr, "wrote %zu\n", n);
		break;
	}
	case 'i': {
		DIR *d = opendir("/in");
		for (struct dirent *e; d && (e = readdir(d));) printf("in %s\n", e->d_name);
		FILE *f = fopen("/in/a.txt", "r");
		if (f && fgets(buf, sizeof buf, f)) printf("says %s", buf); // and stays open
		break;
	}
	case 'b': {
		int fd = open("/out/big", O_WRONLY | O_CREAT, 0644);
		for (int i = 0; i < 3; i++) write(fd, text, n);
		fwrite(text, 1, n, stdout);
		break;
	}
	}
	return 0;
}
