// Prints its answer, then touches memory in the order that a machine likes least, and never ends.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
	puts("the answer is 42");
	fflush(stdout);
	const uint32_t size = 448u << 20;
	volatile uint8_t *m = malloc(size);
	for (uint32_t x = 1;;) {
		x = x * 1664525u + 1013904223u;
		m[x % size] = (uint8_t)x;
	}
}
