// Does what it can to come out otherwise each time: clocks, randomness, addresses, the environment.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
	struct timespec t;
	uint64_t r;
	clock_gettime(CLOCK_REALTIME, &t);
	printf("%lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec);
	clock_gettime(CLOCK_MONOTONIC, &t);
	printf("%lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec);
	getentropy(&r, sizeof r);
	printf("%llx %p %p %s\n", (unsigned long long)r, (void *)&r, malloc(1 << 16), getenv("HOME") ? getenv("HOME") : "-");
	volatile double zero = 0;
	double nan = zero / zero;
	fwrite(&nan, sizeof nan, 1, stdout);
	return r & 1;
}
