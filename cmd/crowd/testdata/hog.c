// Takes memory until there is no more: a machine that refuses it ends the run there.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
	for (char *p; (p = malloc(1 << 16)); memset(p, 1, 1 << 16))
		;
	fputs("out of memory\n", stderr);
	return 5;
}
