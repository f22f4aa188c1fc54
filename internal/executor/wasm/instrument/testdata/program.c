// A C program with memory from malloc, formatted output, sorting, floats, recursion and exit.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *p, const void *q) { return strcmp(*(char *const *)p, *(char *const *)q); }

static long ackermann(long m, long n) { return m == 0 ? n + 1 : ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1)); }

int main(int argc, char **argv) {
  enum { n = 2000 };
  char **words = malloc(n * sizeof *words);
  for (int i = 0; i < n; i++) {
    words[i] = malloc(200 + i % 100);
    snprintf(words[i], 200, "%08x-%g", i * 2654435761u, sin(i) / i);
  }
  qsort(words, n, sizeof *words, compare);
  char *big = calloc(1, 5 << 20);
  memset(big, 'x', 4 << 20);
  printf("%s %s %s %ld %zu\n", argv[0], words[0], words[n - 1], ackermann(2, 9), strlen(big));
  double zero = argc - 1.0, nan = zero / zero;
  unsigned char bits[8];
  memcpy(bits, &nan, 8);
  for (int i = 0; i < 8; i++) printf("%02x", bits[i]);
  printf(" %g %g\n", nan, copysign(1, nan));
  exit(3);
}
