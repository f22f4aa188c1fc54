package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

const compareUsage = "when two outputs are the same answer: exact, numeric:rel=1e-6 (or abs=), float64:rel=…, lines (any order), json, wasm:PROGRAM"

// withProgram is a --compare flag with another text for its program's file; the same if it has none.
func withProgram(flag string, program crowd.CID) string {
	rest, ok := strings.CutPrefix(flag, crowd.CompareWasm+":")
	if !ok {
		return flag
	}
	_, more, found := strings.Cut(rest, ",")
	flag = crowd.CompareWasm + ":" + string(program)
	if found {
		flag += "," + more
	}
	return flag
}

// comparatorFile is the program's file of a --compare flag, or "".
func comparatorFile(flag string) string {
	rest, _ := strings.CutPrefix(flag, crowd.CompareWasm+":")
	file, _, _ := strings.Cut(rest, ",")
	if rest == flag {
		return ""
	}
	return file
}

// parseCompare checks a --compare flag before anything is uploaded, and makes its program's path absolute.
func parseCompare(flag string) (string, error) {
	if _, err := crowd.ParseCompare(withProgram(flag, unsent)); err != nil {
		return "", fmt.Errorf("--%w", err)
	}
	file := comparatorFile(flag)
	if !strings.HasPrefix(flag, crowd.CompareWasm+":") {
		return flag, nil
	}
	if st, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("--compare: %w", err)
	} else if !st.Mode().IsRegular() {
		return "", fmt.Errorf("--compare: %s: not a file", file)
	}
	path, err := filepath.Abs(file)
	return withProgram(flag, crowd.CID(path)), err
}

// checkComparator refuses a comparator that cannot run, before anything is uploaded.
func (a *app) checkComparator(flag string) error {
	file := comparatorFile(flag)
	if file == "" {
		return nil
	}
	if _, err := a.readProgram(file, 0); err != nil {
		return fmt.Errorf("--compare: %w", err)
	}
	return nil
}

// uploadComparator puts the CID of its program into a --compare flag that has one.
func uploadComparator(ctx context.Context, c *rpc.Client, flag string) (string, error) {
	file := comparatorFile(flag)
	if file == "" {
		return flag, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("--compare: %w", err)
	}
	defer f.Close()
	cid, err := c.UploadFile(ctx, f, nil)
	return withProgram(flag, cid), err
}

// compareText is for people: how outputs are compared, and the class that this declares.
func compareText(compare string) string {
	c, err := crowd.ParseCompare(compare)
	if err != nil {
		return compare
	}
	return fmt.Sprintf("%s (%s)", c, c.Class())
}
