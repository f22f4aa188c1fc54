// Writes "word<tab>1" for each word of stdin; exits with 3 when one of them is poison.
#include <stdio.h>
#include <string.h>

int main(void) {
	char word[256];
	while (scanf("%255s", word) == 1) {
		if (strcmp(word, "poison") == 0) {
			fputs("poison\n", stderr);
			return 3;
		}
		printf("%s\t1\n", word);
	}
	return 0;
}
