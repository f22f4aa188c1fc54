// Reads a number and writes a thousand lines "key<tab>value" of about a kilobyte that follow from it.
#include <stdint.h>
#include <stdio.h>

int main(void) {
	unsigned seed;
	if (scanf("%u", &seed) != 1) return 2;
	uint64_t x = seed * 2654435761u + 1;
	char value[1000];
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 999; k++) {
			x = x * 6364136223846793005u + 1442695040888963407u;
			value[k] = 'a' + (x >> 59) % 26;
		}
		value[999] = 0;
		printf("key%u\t%s\n", (unsigned)(x >> 33) % 5000, value);
	}
	return 0;
}
