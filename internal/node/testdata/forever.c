// Says what it is asked for, and goes on for ever.
#include <stdio.h>

volatile unsigned x;

int main(void) {
	puts("the answer is 42");
	fflush(stdout);
	for (;;) x++;
}
