// An MCP upstream as plain as can be, on Go's own parser, which matches members in any case: notes what it executes,
// and answers it. With "-" instead of a port it reads bodies (base64, one a line) and tells what it read of each.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

type message struct {
	JSONRPC any             `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Method  any             `json:"method"`
	Params  json.RawMessage `json:"params"`
}

type params struct {
	Name      any `json:"name"`
	URI       any `json:"uri"`
	Arguments any `json:"arguments"`
	Ref       any `json:"ref"`
	Meta      any `json:"_meta"`
}

func decode(body []byte, into any) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		panic(err)
	}
}

func read(body []byte) (message, params) {
	var m message
	var p params
	decode(body, &m)
	if bytes.HasPrefix(bytes.TrimSpace(m.Params), []byte("{")) {
		decode(m.Params, &p)
	}
	return m, p
}

func lines() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	for in.Scan() {
		body, _ := base64.StdEncoding.DecodeString(in.Text())
		m, p := read(body)
		var id any
		if m.ID != nil {
			decode(m.ID, &id)
		}
		encoder.Encode([]any{m.JSONRPC, id, m.Method, p.Name, p.URI, p.Arguments, p.Ref, p.Meta})
	}
}

func main() {
	if os.Args[1] == "-" {
		lines()
		return
	}
	var lock sync.Mutex
	seen := []any{}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == "GET" {
			lock.Lock()
			defer lock.Unlock()
			json.NewEncoder(w).Encode(seen)
			return
		}
		body, _ := io.ReadAll(r.Body)
		m, p := read(body)
		trace := strings.Split(r.Header.Get("traceparent"), "-")[1]
		lock.Lock()
		seen = append(seen, []any{trace, m.Method, p.Name, p.URI, p.Arguments, p.Ref})
		lock.Unlock()
		if m.ID == nil {
			w.WriteHeader(202)
			return
		}
		result := map[string]any{"content": []any{}, "messages": []any{}, "contents": []any{}, "completion": map[string]any{"values": []any{}}}
		json.NewEncoder(w).Encode(map[string]any{"jsonrpc": "2.0", "id": m.ID, "result": result})
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
