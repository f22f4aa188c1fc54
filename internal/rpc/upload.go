package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
)

// MaxChunk bounds the bytes in one piece of an upload or download.
const MaxChunk = 1 << 20

// What an upload becomes.
const (
	KindFile   = "file"
	KindFolder = "folder"
)

// fileName is what an upload of the kind KindFile has in its folder.
const fileName = "file"

// uploads are the contents on their way in. They lie in files until they are
// complete, so that memory stays small; what is abandoned expires.
type uploads struct {
	// set once
	dir     string
	bounds  UploadBounds
	backend Backend

	// guarded by mu
	mu     sync.Mutex
	open   map[string]*upload
	total  int64 // bytes in all of them
	closed bool
}

// UploadBounds limit what clients may leave with the server before it is used.
type UploadBounds struct {
	Open    int           // uploads at the same time
	Size    int64         // bytes in one
	Total   int64         // bytes in all
	Entries int           // files and folders in one
	Expiry  time.Duration // after the last write
}

func (b UploadBounds) withDefaults() UploadBounds {
	set := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	set(&b.Size, MaxUpload)
	set(&b.Total, 64<<30)
	if b.Open == 0 {
		b.Open = 64
	}
	if b.Entries == 0 {
		b.Entries = maxEntries
	}
	if b.Expiry == 0 {
		b.Expiry = 10 * time.Minute
	}
	return b
}

type upload struct {
	// set once
	id, kind string
	dir      string
	root     *os.Root
	expire   *time.Timer

	// guarded by mu
	mu      sync.Mutex
	gone    bool
	size    int64            // bytes of all files
	entries map[string]int64 // size of a file; -1: a folder
}

// openUploads starts with an empty folder: nobody can finish what an earlier
// server was given.
func openUploads(dir string, bounds UploadBounds, b Backend) (*uploads, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear uploads: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make upload folder: %w", err)
	}
	return &uploads{dir: dir, bounds: bounds, backend: b, open: make(map[string]*upload)}, nil
}

func (us *uploads) begin(kind string) (string, error) {
	if kind != KindFile && kind != KindFolder {
		return "", Errorf(BadRequest, "upload of kind %q: want %q or %q", kind, KindFile, KindFolder)
	}
	us.mu.Lock()
	defer us.mu.Unlock()
	if us.closed {
		return "", Errorf(Unavailable, "the node is stopping")
	}
	if len(us.open) >= us.bounds.Open {
		return "", Errorf(Unavailable, "%d uploads are open already", len(us.open)).
			WithHint("finish or abort others; abandoned ones expire after %v", us.bounds.Expiry)
	}
	u := &upload{id: rand.Text(), kind: kind, entries: make(map[string]int64)}
	u.dir = filepath.Join(us.dir, u.id)
	if err := os.Mkdir(u.dir, 0o700); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(u.dir)
	if err != nil {
		return "", err
	}
	u.root = root
	u.expire = time.AfterFunc(us.bounds.Expiry, func() { us.drop(u) })
	us.open[u.id] = u
	return u.id, nil
}

func (us *uploads) get(id string) (*upload, error) {
	us.mu.Lock()
	defer us.mu.Unlock()
	u := us.open[id]
	if u == nil {
		return nil, Errorf(NotFound, "no such upload is open").
			WithHint("it was finished, aborted or expired: upload again from the start")
	}
	return u, nil
}

// reserve takes n bytes (or gives them back, n < 0) out of the common bound.
func (us *uploads) reserve(n int64) error {
	us.mu.Lock()
	defer us.mu.Unlock()
	if us.total+n > us.bounds.Total {
		return Errorf(Unavailable, "all uploads together exceed %d bytes", us.bounds.Total).
			WithHint("wait until other uploads are finished")
	}
	us.total += n
	return nil
}

// write appends data to a file of the upload. A path that ends in a slash makes
// an empty folder.
func (us *uploads) write(id, name string, offset int64, data []byte) error {
	if len(data) > MaxChunk {
		return Errorf(TooLarge, "chunk of %d bytes, at most %d", len(data), MaxChunk)
	}
	u, err := us.get(id)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return Errorf(NotFound, "the upload is closed")
	}
	folder := false
	if u.kind == KindFile {
		if name != "" {
			return Errorf(BadRequest, "path %q in the upload of a single file: want none", name)
		}
		name = fileName
	} else {
		name, folder = strings.CutSuffix(name, "/")
		if err := checkPath(name); err != nil {
			return err
		}
	}
	u.expire.Reset(us.bounds.Expiry)
	if folder {
		if len(data) > 0 || offset != 0 {
			return Errorf(BadRequest, "data for the folder %q", name)
		}
		return us.mkdir(u, name)
	}
	have, known := u.entries[name]
	switch {
	case have < 0:
		return Errorf(BadRequest, "%q is a folder of this upload already", name)
	case offset != have:
		return Errorf(Conflict, "write at offset %d, but %d bytes are here", offset, have).
			WithHint("continue at offset %d", have)
	case int64(len(data)) > us.bounds.Size-u.size:
		return Errorf(TooLarge, "upload of more than %d bytes", us.bounds.Size)
	}
	if !known {
		if err := us.room(u); err != nil {
			return err
		}
		if err := us.mkdir(u, path.Dir(name)); err != nil {
			return err
		}
	}
	if err := us.reserve(int64(len(data))); err != nil {
		return err
	}
	if err := appendAt(u.root, name, offset, data); err != nil {
		us.reserve(-int64(len(data)))
		return err
	}
	u.entries[name] = have + int64(len(data))
	u.size += int64(len(data))
	return nil
}

func (us *uploads) room(u *upload) error {
	if len(u.entries) >= us.bounds.Entries {
		return Errorf(TooLarge, "upload of more than %d files and folders", us.bounds.Entries).
			WithHint("pack them into one file")
	}
	return nil
}

// mkdir makes the folder and those above it, each counted as an entry.
func (us *uploads) mkdir(u *upload, name string) error {
	if name == "." {
		return nil
	}
	if size, ok := u.entries[name]; ok {
		if size >= 0 {
			return Errorf(BadRequest, "%q is a file of this upload already", name)
		}
		return nil
	}
	if err := us.mkdir(u, path.Dir(name)); err != nil {
		return err
	}
	if err := us.room(u); err != nil {
		return err
	}
	if err := u.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	u.entries[name] = -1
	return nil
}

// appendAt writes data where the file ends; what an error leaves half written is
// cut off by the next attempt.
func appendAt(root *os.Root, name string, offset int64, data []byte) (err error) {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(offset); err != nil {
		return err
	}
	_, err = f.WriteAt(data, offset)
	return err
}

// finish hands the content to the backend. The upload is over in any case.
func (us *uploads) finish(ctx context.Context, id string) (crowd.CID, error) {
	u, err := us.get(id)
	if err != nil {
		return "", err
	}
	u.mu.Lock()
	defer us.drop(u) // after the unlock
	defer u.mu.Unlock()
	if u.gone {
		return "", Errorf(NotFound, "the upload is closed")
	}
	u.expire.Stop()
	if u.kind == KindFolder {
		return us.backend.AddFolder(ctx, u.root.FS())
	}
	f, err := u.root.OpenFile(fileName, os.O_RDONLY|os.O_CREATE, 0o600) // created: an empty file was never written
	if err != nil {
		return "", err
	}
	defer f.Close()
	return us.backend.AddFile(ctx, f)
}

func (us *uploads) abort(id string) error {
	u, err := us.get(id)
	if err == nil {
		us.drop(u)
	}
	return err
}

// drop forgets u and removes its files; the second time does nothing.
func (us *uploads) drop(u *upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return
	}
	u.gone = true
	u.expire.Stop()
	u.root.Close()
	os.RemoveAll(u.dir) // what stays is removed at the next start
	us.mu.Lock()
	defer us.mu.Unlock()
	delete(us.open, u.id)
	us.total -= u.size
}

func (us *uploads) close() {
	us.mu.Lock()
	us.closed = true
	all := make([]*upload, 0, len(us.open))
	for _, u := range us.open {
		all = append(all, u)
	}
	us.mu.Unlock()
	for _, u := range all {
		us.drop(u)
	}
}
