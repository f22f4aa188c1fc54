// A reactor: what the constructor does is the same for all items, unless EARLY makes it look at one.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

int getentropy(void *, size_t);

// A mutable global of WebAssembly, which lies in no memory.
__asm__(".globaltype counter, i32\ncounter:\n");

static int count(void) {
	int n;
	__asm__ volatile("global.get counter\ni32.const 1\ni32.add\nglobal.set counter\nglobal.get counter\nlocal.set %0" : "=r"(n));
	return n;
}

static uint32_t table[1 << 14];
static char seen[100];
static unsigned char early[8];
static int runs;
static char *heap;
static volatile int sink;
static char *volatile big;

__attribute__((constructor)) static void start(void) {
	struct timespec now;
	uint32_t x = 1;
	for (int i = 0; i < 1 << 14; i++) table[i] = x = x * 1664525 + 1013904223;
	for (int i = 0; i < 5; i++) count();
	heap = calloc(1, 200000); // grows the memory
	getentropy(early, sizeof early);
	clock_gettime(CLOCK_REALTIME, &now);
	const char *how = getenv("EARLY");
	if (!how) return;
	if (!strcmp(how, "stdin")) read(0, seen, 10);
	if (!strcmp(how, "size")) snprintf(seen, sizeof seen, "%ld", (long)lseek(0, 0, SEEK_END));
	if (!strcmp(how, "write")) write(1, "early\n", 6);
	if (!strcmp(how, "close")) close(2);
	if (!strcmp(how, "poll")) { // tells how many bytes there are to read
		__wasi_subscription_t s = {.u.tag = __WASI_EVENTTYPE_FD_READ};
		__wasi_event_t e;
		__wasi_size_t n;
		if (!__wasi_poll_oneoff(&s, &e, 1, &n)) snprintf(seen, sizeof seen, "%d", (int)e.fd_readwrite.nbytes);
	}
	if (!strcmp(how, "flags")) fcntl(0, F_SETFL, O_NONBLOCK);
	if (!strcmp(how, "file")) close(open("/tmp/early", O_CREAT | O_WRONLY, 0644));
	if (!strcmp(how, "exit")) exit(9);
	if (!strcmp(how, "trap")) __builtin_trap();
	if (!strcmp(how, "loop")) for (;;) sink++;
}

static void show(const unsigned char *b) { for (int i = 0; i < 8; i++) printf("%02x", b[i]); }

__attribute__((export_name("crowd_item"))) void crowd_item(void) {
	static char text[1 << 16];
	unsigned char own[8];
	struct timespec now;
	size_t n = read(0, text, sizeof text - 1);
	getentropy(own, sizeof own);
	clock_gettime(CLOCK_REALTIME, &now);
	uint32_t sum = 0;
	for (int i = 0; i < 1 << 14; i++) sum += table[i]++;
	for (int i = 0; i < 200000; i += 499) sum += heap[i]++;
	printf("run %d, %d, %d pages, flags %d, %d, early ", ++runs, count(), (int)__builtin_wasm_memory_size(0), fcntl(0, F_GETFL), access("/tmp/early", F_OK));
	show(early);
	printf(" own ");
	show(own);
	printf(" %ld.%09ld sum %u saw %s text %.50s\n", (long)now.tv_sec, now.tv_nsec, sum, seen, text);
	fflush(stdout);
	memset(heap, 0x55, 200000);
	switch (n ? text[0] : 0) {
	case 'x': _Exit(5);
	case 't': __builtin_trap();
	case 'l': for (;;) sink++;
	case 'g': memset(big = malloc(1 << 19), 0x77, 1 << 19); break; // the memory grows
	case 'o': close(open("/out/trace", O_CREAT | O_WRONLY, 0644)); break;
	case 'c': close(0); break;
	}
}
