package rpc

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a path in an uploaded folder may be.
const (
	maxPath  = 1024 // bytes
	maxDepth = 32   // folders
)

// Default bounds of an upload. The client holds to them before it sends anything.
const (
	MaxUpload  = 16 << 30 // bytes
	maxEntries = 100_000  // files and folders
)

// nameRule is the hint of every error about a name.
const nameRule = "rename it: names are UTF-8 without control characters and backslashes; a path has at most 1024 " +
	"bytes and 32 folders"

// checkPath holds path to the rule for names: whoever stores it would refuse it otherwise, after it was sent.
func checkPath(name string) error {
	bad := func(format string, a ...any) error { return Errorf(BadRequest, format, a...).WithHint(nameRule) }
	switch {
	case !utf8.ValidString(name):
		return bad("the name %q is not UTF-8", name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return bad("the name %q has a control character", name)
	case strings.Contains(name, `\`):
		return bad("the name %q has a backslash", name)
	case len(name) > maxPath:
		return bad("the path %.40q… has %d bytes, at most %d are allowed", name, len(name), maxPath)
	case strings.Count(name, "/") >= maxDepth:
		return bad("the path %.40q… has more than %d folders", name, maxDepth)
	case name == "." || !fs.ValidPath(name):
		return Errorf(BadRequest, "path %q: want a relative path with slashes and without . or ..", name)
	}
	return nil
}

// FolderSize is how much a folder holds.
type FolderSize struct {
	Files int
	Bytes int64
}

// ScanFolder counts what UploadFolder would send of dir. It refuses what cannot be sent, by name: names beyond the
// rule, links that lead out of dir, to a folder or to nothing, and what is neither a file nor a folder. It opens no
// file, so that a pipe cannot hold it up.
func ScanFolder(ctx context.Context, dir fs.FS) (size FolderSize, err error) {
	entries := 0
	return size, fs.WalkDir(dir, ".", func(name string, d fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil || name == "." {
			return err
		}
		if err := checkPath(name); err != nil {
			return err
		}
		if entries++; entries > maxEntries {
			return Errorf(TooLarge, "more than %d files and folders", maxEntries).
				WithHint("pack them into one file, as an archive")
		}
		if d.IsDir() {
			return nil
		}
		info, err := regular(dir, name, d)
		if err == nil {
			size.Files++
			size.Bytes += info.Size()
		}
		if err == nil && size.Bytes > MaxUpload {
			return Errorf(TooLarge, "more than %d GiB in all", MaxUpload>>30).WithHint("split it into several jobs")
		}
		return err
	})
}

// regular is the file that the entry d of the path name is, or leads to.
func regular(dir fs.FS, name string, d fs.DirEntry) (fs.FileInfo, error) {
	info, err := fs.Stat(dir, name)
	if d.Type()&fs.ModeSymlink != 0 {
		const rule = "a link in an input folder leads to a file in the same folder, by a relative path: " +
			"put the file itself there, or leave the link out"
		target, _ := fs.ReadLink(dir, name)
		switch {
		case path.IsAbs(target):
			return nil, Errorf(BadRequest, "%q is a link to the absolute path %q", name, target).WithHint(rule)
		case errors.Is(err, fs.ErrNotExist):
			return nil, Errorf(BadRequest, "%q is a link to %q, which does not exist", name, target).WithHint(rule)
		case err != nil:
			return nil, Errorf(BadRequest, "%q is a link to %q, which leads out of the folder or in a circle",
				name, target).WithHint(rule)
		case info.IsDir():
			return nil, Errorf(BadRequest, "%q is a link to the folder %q", name, target).WithHint(rule)
		}
	}
	if err != nil {
		return nil, err
	}
	if what := NotFile(info.Mode()); what != "" {
		return nil, Errorf(BadRequest, "%q is %s, not a file", name, what).WithHint("leave out of the folder what is " +
			"neither a file nor a folder")
	}
	return info, nil
}

// NotFile says what something is that is no regular file, as "a named pipe"; "" for a regular file.
func NotFile(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return ""
	case m.IsDir():
		return "a folder"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "something special"
}
