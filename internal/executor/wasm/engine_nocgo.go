//go:build linux && !(cgo && (amd64 || arm64))

package wasm

var engineNames = []string{Wazero}

var engines = map[string]func() (engine, error){Wazero: newWazero}

// engineVersions are part of the cache key: code of another version is never loaded.
var engineVersions = map[string]string{Wazero: wazeroVersion}
