// Writes the lines of stdin that begin with "func " and a capital letter.
#include <stdio.h>
#include <string.h>

int main(void) {
	static char line[1 << 20];
	while (fgets(line, sizeof line, stdin))
		if (strncmp(line, "func ", 5) == 0 && line[5] >= 'A' && line[5] <= 'Z')
			fputs(line, stdout);
	return 0;
}
