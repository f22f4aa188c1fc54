package wasm

// walk resolves the path at (ptr, n) below the folder fd.
func (h *host) walk(fd, ptr, n uint64) (parent *node, name string, at *node, e errno) {
	d := h.fd(fd)
	if d == nil {
		return nil, "", nil, eBadF
	}
	if d.n.kind != dirType {
		return nil, "", nil, eNotDir
	}
	p, e := h.text(ptr, n)
	if e != ok {
		return nil, "", nil, e
	}
	before := h.files.inputs
	parent, name, at, e, fault := h.files.lookup(d.n, p)
	if fault != nil {
		return nil, "", nil, h.fail(fault)
	}
	if e == ok && !h.pay(n*gasByte+uint64(h.files.inputs-before)*gasEntry) {
		return nil, "", nil, stopped
	}
	return parent, name, at, e
}

func pathOpen(h *host, a []uint64) errno {
	const writes = rightFDWrite
	oflags, rights, flags, result := a[4], a[5], uint16(a[7]), a[8]
	parent, name, n, e := h.walk(a[0], a[2], a[3])
	if e != ok {
		return e
	}
	created := false
	switch {
	case oflags&^0xf != 0 || flags&^0x1f != 0:
		return eInval
	case n != nil && oflags&openCreate != 0 && oflags&openExcl != 0:
		return eExist
	case n == nil && oflags&openCreate == 0:
		return eNoEnt
	case n == nil && oflags&openDir != 0:
		return eInval
	case n == nil:
		if e := parent.writable(); e != ok {
			return e
		}
		if !h.pay(gasCreate) {
			return stopped
		}
		made, e, fault := h.files.make(regularType, parent, name)
		if e != ok || fault != nil {
			return h.settle(e, fault)
		}
		n, created = made, true
	}
	switch {
	case n.kind == linkType:
		return eLoop
	case n.kind == dirType && (rights&writes != 0 || oflags&openTrunc != 0):
		return eIsDir
	case n.kind != dirType && oflags&openDir != 0:
		return eNotDir
	case n.at == atIn && (rights&writes != 0 || oflags&openTrunc != 0):
		return eROFS
	}
	d := &descriptor{n: n, rights: rights & rightAll, flags: flags}
	if n.kind == dirType {
		d.rights = dirRights & (rights | 1<<14) // readdir
	}
	fd, e := h.install(d)
	if e != ok {
		if created {
			h.files.unlink(n)
		}
		return e
	}
	if err := h.files.open(n); err != nil {
		return h.fail(err)
	}
	if oflags&openTrunc != 0 && n.size > 0 {
		w := &descriptor{n: n, rights: rightFDWrite}
		if e := h.resize(w, 0); e != ok {
			return e
		}
	}
	return h.put32(result, fd)
}

func pathCreateDirectory(h *host, a []uint64) errno {
	parent, name, n, e := h.walk(a[0], a[1], a[2])
	if e != ok {
		return e
	}
	if n != nil {
		return eExist
	}
	_, e, fault := h.files.make(dirType, parent, name)
	return h.settle(e, fault)
}

func pathFilestatGet(h *host, a []uint64) errno {
	_, _, n, e := h.walk(a[0], a[2], a[3])
	if e != ok {
		return e
	}
	if n == nil {
		return eNoEnt
	}
	if n.kind == linkType && a[1]&1 != 0 {
		return eLoop
	}
	return h.filestat(a[4], n)
}

func pathFilestatSetTimes(h *host, a []uint64) errno {
	_, _, n, e := h.walk(a[0], a[2], a[3])
	switch {
	case e != ok:
		return e
	case n == nil:
		return eNoEnt
	case n.at == atIn || n.at == atRoot:
		return eROFS
	}
	return ok
}

// pathReadlink: links in /in are seen and never followed or read.
func pathReadlink(h *host, a []uint64) errno {
	_, _, n, e := h.walk(a[0], a[1], a[2])
	switch {
	case e != ok:
		return e
	case n == nil:
		return eNoEnt
	case n.kind == linkType:
		return eAcces
	}
	return eInval
}

// remove checks what removing a name has in common; files tells which kind is meant.
func (h *host) remove(a []uint64, files bool) errno {
	parent, _, n, e := h.walk(a[0], a[1], a[2])
	switch {
	case e != ok:
		return e
	case n == nil:
		return eNoEnt
	case parent == nil:
		return eInval
	}
	if e := parent.writable(); e != ok {
		return e
	}
	switch {
	case files && n.kind == dirType:
		return eIsDir
	case !files && n.kind != dirType:
		return eNotDir
	case len(n.kids) > 0:
		return eNotEmpty
	}
	h.files.unlink(n)
	return ok
}

func pathRemoveDirectory(h *host, a []uint64) errno { return h.remove(a, false) }
func pathUnlinkFile(h *host, a []uint64) errno      { return h.remove(a, true) }

func pathRename(h *host, a []uint64) errno {
	parent, _, n, e := h.walk(a[0], a[1], a[2])
	if e != ok {
		return e
	}
	to, name, old, e := h.walk(a[3], a[4], a[5])
	switch {
	case e != ok:
		return e
	case n == nil:
		return eNoEnt
	case parent == nil || to == nil:
		return eInval
	}
	return h.files.rename(n, to, name, old)
}
