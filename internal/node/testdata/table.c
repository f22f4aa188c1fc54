// Prints a table of words and numbers that depends on how long stdin is.
#include <stdio.h>
#include <unistd.h>

static char in[1 << 16];

int main(void) {
	int n = 0;
	for (ssize_t k; (k = read(0, in, sizeof in)) > 0;) n += k;
	for (int i = 1; i <= 8; i++) printf("row%d %.15g\n", i, (n + i) / 7.0);
	return 0;
}
