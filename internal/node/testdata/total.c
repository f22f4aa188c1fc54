// Adds up the numbers of lines "key<tab>number" whose keys are sorted; exits with 4 when they are not.
#include <stdio.h>
#include <string.h>

int main(void) {
	char key[256] = "", last[256] = "";
	long n, sum = 0;
	int any = 0;
	while (scanf("%255s %ld", key, &n) == 2) {
		int c = any ? strcmp(last, key) : -1;
		if (c > 0) return 4;
		if (any && c < 0) {
			printf("%s\t%ld\n", last, sum);
			sum = 0;
		}
		strcpy(last, key);
		sum += n;
		any = 1;
	}
	if (any) printf("%s\t%ld\n", last, sum);
	return 0;
}
