// A task of a stated length: work N says "working", computes for N rounds, and
// prints what that and its stdin come to.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	uint64_t x = 1;
	int c;
	puts("working");
	fflush(stdout);
	while ((c = getchar()) != EOF) x = x * 31 + (uint64_t)c;
	for (long n = argc > 1 ? atol(argv[1]) : 0; n > 0; n--) x = x * 6364136223846793005u + 1442695040888963407u;
	printf("%llu\n", (unsigned long long)x);
	return 0;
}
