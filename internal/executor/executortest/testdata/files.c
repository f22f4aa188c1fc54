// Holds the file system to what POSIX says, as far as it goes.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int line;
#define CHECK(x) do { if (!(x)) { line = __LINE__; printf("line %d: %s: %s\n", line, #x, strerror(errno)); return 1; } } while (0)

static int spew(const char *path, const char *text) {
	FILE *f = fopen(path, "w");
	CHECK(f);
	CHECK(fputs(text, f) >= 0);
	CHECK(fclose(f) == 0);
	return 0;
}

static int names(const char *path, char *out) {
	DIR *d = opendir(path);
	CHECK(d);
	*out = 0;
	for (struct dirent *e; (e = readdir(d));) { strcat(out, e->d_name); strcat(out, " "); }
	closedir(d);
	return 0;
}

int main(void) {
	char buf[4096];
	struct stat st;
	const char *roots[] = {"/out", "/tmp"};
	for (int i = 0; i < 2; i++) {
		CHECK(chdir(roots[i]) == 0);
		CHECK(spew("b", "bbb") == 0 && spew("a", "aaaa") == 0 && spew("c", "") == 0);
		CHECK(names(".", buf) == 0 && !strcmp(buf, "a b c "));
		CHECK(stat("a", &st) == 0 && st.st_size == 4 && S_ISREG(st.st_mode));
		CHECK(mkdir("d", 0755) == 0 && mkdir("d", 0755) == -1 && errno == EEXIST);
		CHECK(rename("b", "d/b") == 0 && access("b", F_OK) == -1 && errno == ENOENT);
		CHECK(rmdir("d") == -1 && errno == ENOTEMPTY);
		CHECK(rename("d", "d/e") == -1 && errno == EINVAL);
		CHECK(unlink("d") == -1 && errno == EISDIR);
		CHECK(rename("a", "c") == 0 && stat("c", &st) == 0 && st.st_size == 4);
		int fd = open("c", O_RDWR);
		CHECK(fd >= 0 && pwrite(fd, "zz", 2, 10) == 2 && fstat(fd, &st) == 0 && st.st_size == 12);
		CHECK(pread(fd, buf, 100, 2) == 10 && !memcmp(buf, "aa\0\0\0\0\0\0zz", 10));
		CHECK(lseek(fd, -2, SEEK_END) == 10 && read(fd, buf, 5) == 2 && read(fd, buf, 5) == 0);
		CHECK(ftruncate(fd, 3) == 0 && pread(fd, buf, 100, 0) == 3);
		CHECK(ftruncate(fd, 6) == 0 && pread(fd, buf, 100, 0) == 6 && !memcmp(buf, "aaa\0\0\0", 6));
		CHECK(unlink("c") == 0 && pread(fd, buf, 100, 0) == 6 && close(fd) == 0);
		fd = open("log", O_WRONLY | O_CREAT | O_APPEND | O_EXCL, 0644);
		CHECK(fd >= 0 && write(fd, "1", 1) == 1 && lseek(fd, 0, SEEK_SET) == 0 && write(fd, "2", 1) == 1 && close(fd) == 0);
		CHECK(open("log", O_WRONLY | O_CREAT | O_EXCL, 0644) == -1 && errno == EEXIST);
		CHECK(stat("log", &st) == 0 && st.st_size == 2);
		CHECK(open("log/x", O_RDONLY) == -1 && errno == ENOTDIR);
		CHECK(spew("again", "x") == 0 && stat("again", &st) == 0 && st.st_size == 1);
		CHECK(symlink("log", "link") == -1 && link("log", "hard") == -1);
	}
	CHECK(chdir("/") == 0 && names("/", buf) == 0 && !strcmp(buf, "in out tmp "));
	CHECK(rename("/out/log", "/tmp/x") == -1 && errno == EXDEV);
	CHECK(mkdir("/new", 0755) == -1 && errno == EROFS);
	CHECK(rename("/in/a.txt", "/out/a") == -1 && errno == EROFS);
	CHECK(unlink("/in/a.txt") == -1 && errno == EROFS);
	int writes[] = {O_RDWR, O_WRONLY, O_WRONLY | O_APPEND, O_RDONLY | O_TRUNC, O_RDWR | O_CREAT, O_WRONLY | O_TRUNC};
	for (int i = 0; i < 6; i++) {
		int fd = open("/in/a.txt", writes[i], 0644);
		if (fd >= 0) pwrite(fd, "X", 1, 0); // for the test that looks at the file itself
		CHECK(fd == -1 && errno == EROFS);
	}
	CHECK(stat("/in/a.txt", &st) == 0 && st.st_size == 9);
	CHECK(open("/etc/passwd", O_RDONLY) == -1 && errno == ENOENT);
	CHECK(open("/in/link", O_RDONLY) == -1 && errno == ELOOP);
	CHECK(open("/in/linkdir/passwd", O_RDONLY) == -1 && errno == ELOOP);
	CHECK(open("/in/../../etc/passwd", O_RDONLY) == -1);
	CHECK(open("../../../../etc/passwd", O_RDONLY) == -1);
	CHECK(open("/in/deep/er/file", O_RDONLY) >= 0);
	CHECK(open("/in/deep/er/../../a.txt", O_RDONLY) >= 0);
	CHECK(close(open("/tmp/log", O_RDONLY)) == 0);
	int n = 0;
	while (open("/tmp/log", O_RDONLY) >= 0) n++;
	printf("%d descriptors, then %s\n", n, strerror(errno));
	return 0;
}
