// Prints the FNV-1a hash of stdin; exits with 3 when it contains the word poison.
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>

static char in[1 << 16];

int main(void) {
	size_t n = 0;
	for (ssize_t k; (k = read(0, in + n, sizeof in - n)) > 0;) n += k;
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < n; i++) {
		h = (h ^ (unsigned char)in[i]) * 16777619u;
		if (i + 6 <= n && memcmp(in + i, "poison", 6) == 0) {
			fputs("poison\n", stderr);
			return 3;
		}
	}
	char out[16];
	int len = snprintf(out, sizeof out, "%08x\n", h);
	return write(1, out, len) != len;
}
