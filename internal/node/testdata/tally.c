// Counts the lines and bytes of stdin, and checks that the keys are sorted.
#include <stdio.h>
#include <string.h>

static char line[1 << 16], last[1 << 16];

int main(void) {
	long lines = 0, bytes = 0;
	while (fgets(line, sizeof line, stdin)) {
		lines++;
		bytes += strlen(line);
		char *tab = strchr(line, '\t');
		if (!tab) return 4;
		*tab = 0;
		if (strcmp(last, line) > 0) return 5;
		strcpy(last, line);
	}
	printf("%ld %ld\n", lines, bytes);
	return 0;
}
