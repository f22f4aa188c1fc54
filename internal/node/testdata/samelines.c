// A comparator: /in/a and /in/b are the same answer if they hold the same lines, in any order.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cmp(const void *x, const void *y) { return strcmp(*(char **)x, *(char **)y); }

static int lines(const char *path, char *buf, size_t size, char **line) {
	FILE *f = fopen(path, "r");
	if (!f) exit(2);
	buf[fread(buf, 1, size - 1, f)] = 0;
	int n = 0;
	for (char *p = strtok(buf, "\n"); p && n < 1000; p = strtok(NULL, "\n")) line[n++] = p;
	qsort(line, n, sizeof *line, cmp);
	return n;
}

static char a[1 << 16], b[1 << 16], *x[1000], *y[1000];

int main(void) {
	int n = lines("/in/a", a, sizeof a, x), m = lines("/in/b", b, sizeof b, y);
	if (n != m) return 1;
	for (int i = 0; i < n; i++)
		if (strcmp(x[i], y[i])) return 1;
	return 0;
}
