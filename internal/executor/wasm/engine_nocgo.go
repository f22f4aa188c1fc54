//go:build linux && !(cgo && (amd64 || arm64))

package wasm

var engineNames = []string{Wazero}

var engines = map[string]func() (engine, error){Wazero: newWazero}

const engineVersion = wazeroVersion
