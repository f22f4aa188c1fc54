// Copies stdin to stdout, prints arguments and environment, reads /in, writes /out.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
	char buf[4096];
	size_t n;
	for (int i = 0; i < argc; i++) printf("arg %d %s\n", i, argv[i]);
	for (char **e = environ; e && *e; e++) printf("env %s\n", *e);
	while ((n = fread(buf, 1, sizeof buf, stdin)) > 0) fwrite(buf, 1, n, stdout);
	fprintf(stderr, "to stderr\n");
	DIR *d = opendir("/in");
	if (d) {
		struct dirent *e;
		while ((e = readdir(d))) {
			char path[300];
			struct stat st;
			snprintf(path, sizeof path, "/in/%s", e->d_name);
			if (lstat(path, &st)) { printf("stat %s: %s\n", path, strerror(errno)); continue; }
			printf("in %s %s %lld\n", e->d_name, S_ISDIR(st.st_mode) ? "dir" : S_ISREG(st.st_mode) ? "file" : "other", (long long)st.st_size);
		}
		closedir(d);
	}
	FILE *in = fopen("/in/a.txt", "r"), *out;
	if (in) {
		if (mkdir("/out/sub", 0755)) return 90;
		if (!(out = fopen("/out/sub/copy.txt", "w"))) return 91;
		while ((n = fread(buf, 1, sizeof buf, in)) > 0) fwrite(buf, 1, n, out);
		if (fclose(out)) return 92;
		if (fopen("/in/a.txt", "w")) return 93;
		printf("write to /in: %s\n", strerror(errno));
	}
	return argc > 1 ? atoi(argv[1]) : 0;
}
