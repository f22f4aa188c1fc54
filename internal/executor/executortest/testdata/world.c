// Shows all that could differ between machines: clocks, randomness, sockets, inodes.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int getentropy(void *, size_t);

int main(void) {
	struct timespec t;
	for (int i = 0; i < 3; i++) {
		clock_gettime(CLOCK_REALTIME, &t);
		printf("real %lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec);
		clock_gettime(CLOCK_MONOTONIC, &t);
		printf("mono %lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec);
	}
	struct timespec hour = {3600, 0};
	nanosleep(&hour, 0);
	clock_gettime(CLOCK_REALTIME, &t);
	printf("after an hour %lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec);
	unsigned char r[16];
	getentropy(r, sizeof r);
	printf("random ");
	for (int i = 0; i < 16; i++) printf("%02x", r[i]);
	struct stat st;
	stat("/in/a.txt", &st);
	printf("\nino %llu dev %llu mtime %lld\n", (unsigned long long)st.st_ino, (unsigned long long)st.st_dev, (long long)st.st_mtim.tv_sec);
	int a = accept(0, 0, 0);
	printf("accept %d %s\n", a, strerror(errno));
	return 0;
}
