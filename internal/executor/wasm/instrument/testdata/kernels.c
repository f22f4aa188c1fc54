// Kernels for the tests and benchmarks: each export takes its size and returns a checksum.
#include <math.h>
#include <stdint.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name))) int name(int n)

static double a[256 * 256], b[256 * 256], c[256 * 256];
static uint8_t bytes[1 << 20];

static int bits(double x) {
  uint64_t u;
  memcpy(&u, &x, 8);
  return (int)(u ^ (u >> 32));
}

// n multiplications of 256 x 256 matrices.
EXPORT(matmul) {
  for (int i = 0; i < 256 * 256; i++) {
    a[i] = i % 17 * 0.25;
    b[i] = i % 23 * 0.5;
    c[i] = 0;
  }
  for (int r = 0; r < n; r++)
    for (int i = 0; i < 256; i++)
      for (int k = 0; k < 256; k++) {
        double x = a[i * 256 + k];
        for (int j = 0; j < 256; j++) c[i * 256 + j] += x * b[k * 256 + j];
      }
  return bits(c[777]);
}

// n steps of five bodies.
EXPORT(nbody) {
  static double x[5][3], v[5][3], m[5];
  for (int i = 0; i < 5; i++) {
    m[i] = 1.0 / (i + 1);
    for (int d = 0; d < 3; d++) {
      x[i][d] = (i * 7 + d * 3) % 11;
      v[i][d] = (i * 5 + d) % 7 * 0.01;
    }
  }
  for (int s = 0; s < n; s++) {
    for (int i = 0; i < 5; i++)
      for (int j = i + 1; j < 5; j++) {
        double d[3], r = 0;
        for (int k = 0; k < 3; k++) d[k] = x[i][k] - x[j][k], r += d[k] * d[k];
        double g = 0.001 / (r * sqrt(r));
        for (int k = 0; k < 3; k++) v[i][k] -= d[k] * m[j] * g, v[j][k] += d[k] * m[i] * g;
      }
    for (int i = 0; i < 5; i++)
      for (int k = 0; k < 3; k++) x[i][k] += 0.001 * v[i][k];
  }
  return bits(x[0][0] + x[4][2]);
}

// n x n points.
EXPORT(mandelbrot) {
  int sum = 0;
  for (int py = 0; py < n; py++)
    for (int px = 0; px < n; px++) {
      double cr = 3.0 * px / n - 2, ci = 2.0 * py / n - 1, zr = 0, zi = 0;
      int i = 0;
      for (; i < 100 && zr * zr + zi * zi < 4; i++) {
        double t = zr * zr - zi * zi + cr;
        zi = 2 * zr * zi + ci;
        zr = t;
      }
      sum += i;
    }
  return sum;
}

// n blocks through the compression function of SHA-256.
EXPORT(sha256) {
  static const uint32_t k[8] = {0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5};
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
#define ROT(x, r) ((x) >> (r) | (x) << (32 - (r)))
  for (int i = 0; i < n; i++) {
    uint32_t w[64], s[8];
    for (int t = 0; t < 16; t++) w[t] = i * 64 + t;
    for (int t = 16; t < 64; t++) {
      uint32_t p = w[t - 15], q = w[t - 2];
      w[t] = w[t - 16] + (ROT(p, 7) ^ ROT(p, 18) ^ p >> 3) + w[t - 7] + (ROT(q, 17) ^ ROT(q, 19) ^ q >> 10);
    }
    memcpy(s, h, sizeof s);
    for (int t = 0; t < 64; t++) {
      uint32_t x = s[7] + (ROT(s[4], 6) ^ ROT(s[4], 11) ^ ROT(s[4], 25)) + (s[4] & s[5] ^ ~s[4] & s[6]) + k[t % 8] * (t + 1) + w[t];
      uint32_t y = (ROT(s[0], 2) ^ ROT(s[0], 13) ^ ROT(s[0], 22)) + (s[0] & s[1] ^ s[0] & s[2] ^ s[1] & s[2]);
      memmove(s + 1, s, 7 * sizeof *s);
      s[4] += x;
      s[0] = x + y;
    }
    for (int t = 0; t < 8; t++) h[t] += s[t];
  }
  return (int)h[0];
}

// n passes of a 3 x 3 box filter over 1024 x 1024 pixels.
EXPORT(blur) {
  for (int i = 0; i < 1 << 20; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 24);
  for (int r = 0; r < n; r++)
    for (int y = 1; y < 1023; y++)
      for (int x = 1; x < 1023; x++) {
        int s = 0;
        for (int dy = -1; dy <= 1; dy++)
          for (int dx = -1; dx <= 1; dx++) s += bytes[(y + dy) * 1024 + x + dx];
        bytes[y * 1024 + x] = (uint8_t)(s / 9);
      }
  int sum = 0;
  for (int i = 0; i < 1 << 20; i++) sum = sum * 31 + bytes[i];
  return sum;
}

__attribute__((noinline)) static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

// The n-th Fibonacci number by recursion: calls and little else.
EXPORT(recursion) { return fib(n); }

static int less(const void *p, const void *q) { return *(const int *)p < *(const int *)q ? -1 : *(const int *)p > *(const int *)q; }

static void sort(int *v, int n, int (*cmp)(const void *, const void *)) {
  for (int gap = n / 2; gap > 0; gap /= 2)
    for (int i = gap; i < n; i++)
      for (int j = i - gap; j >= 0 && cmp(v + j, v + j + gap) > 0; j -= gap) {
        int t = v[j];
        v[j] = v[j + gap];
        v[j + gap] = t;
      }
}

// Sorts n numbers with a comparison through a pointer.
EXPORT(shellsort) {
  static int v[1 << 17];
  int (*volatile cmp)(const void *, const void *) = less;
  for (int i = 0; i < n; i++) v[i] = (int)(i * 2654435761u);
  sort(v, n, cmp);
  return v[n / 3];
}

// A byte code interpreter: one big switch.
EXPORT(interpreter) {
  uint32_t acc = 1, x = 0, y = 0;
  for (int i = 0; i < 4096; i++) bytes[i] = (uint8_t)((i * 2654435761u >> 13) % 12);
  for (int r = 0; r < n; r++)
    for (int pc = 0; pc < 4096; pc++) switch (bytes[pc]) {
        case 0: acc += x; break;
        case 1: acc ^= y; break;
        case 2: x = acc * 3; break;
        case 3: y = acc >> 3; break;
        case 4: acc = ROT(acc, 5); break;
        case 5: if (acc & 1) pc++; break;
        case 6: x ^= bytes[8192 + (acc & 1023)]; break;
        case 7: bytes[8192 + (x & 1023)] = (uint8_t)acc; break;
        case 8: acc -= y + x; break;
        case 9: y += 7; break;
        case 10: acc = acc * 1664525 + 1013904223; break;
        default: acc++; break;
      }
  return (int)acc;
}
