package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// NetworkWarnings returns what in a valid network document has no effect although it was
// probably meant to have one: members with unknown names, and IPv6 settings while IPv6 is
// off. flannel ignores both in silence, and documents with members of other programs work,
// so they are not errors. Each warning is a sentence for an operator. The result is empty
// for a document that ParseNetwork refuses.
func NetworkWarnings(data []byte) []string {
	var members, backend map[string]json.RawMessage
	if json.Unmarshal(data, &members) != nil {
		return nil
	}
	out := unknownMembers("", members, memberNames(document{}))
	for name, value := range members {
		if strings.EqualFold(name, "Backend") && json.Unmarshal(value, &backend) == nil {
			out = append(out, unknownMembers("Backend.", backend, memberNames(backendData{}))...)
		}
	}
	slices.Sort(out)
	var doc document
	if json.Unmarshal(data, &doc) != nil {
		return nil
	}
	if doc.IPv6Network.Or("") != "" && !doc.EnableIPv6.Present() {
		out = append(out, `IPv6Network has no effect, because IPv6 is off by default: add "EnableIPv6": true, or remove IPv6Network`)
	}
	if on, said := doc.EnableIPv4.Get(); said && !on && doc.Network.Or("") != "" {
		out = append(out, `Network has no effect, because EnableIPv4 is false: set EnableIPv4 to true, or remove Network`)
	}
	return out
}

// memberNames returns the JSON names of a document's members.
func memberNames(doc any) []string {
	var out []string
	t := reflect.TypeOf(doc)
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out = append(out, name)
	}
	return out
}

// unknownMembers warns of members that are not in names. Go's decoder ignores case, as
// flannel does. A name that starts with '_' or '#' is a comment.
func unknownMembers(path string, members map[string]json.RawMessage, names []string) []string {
	var out []string
	for name := range members {
		if strings.HasPrefix(name, "_") || strings.HasPrefix(name, "#") || slices.ContainsFunc(names, func(known string) bool { return strings.EqualFold(known, name) }) {
			continue
		}
		text := fmt.Sprintf("member %s%.60q is not known and has no effect", path, name)
		if near := nearest(name, names); near != "" {
			text += fmt.Sprintf(": did you mean %q?", near)
		}
		out = append(out, text)
	}
	return out
}

// nearest returns the name that differs from a typed name by at most two letters, or by a
// third of a short name; "" if there is none.
func nearest(typed string, names []string) string {
	if len(typed) > 60 {
		return ""
	}
	best, distance := "", 3
	for _, name := range names {
		if d := editDistance(strings.ToLower(typed), strings.ToLower(name)); d < distance && 3*d <= len(name)+2 {
			best, distance = name, d
		}
	}
	return best
}

// editDistance is Levenshtein's: the number of letters to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0] // of the row above, left of column j
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			corner, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, corner+cost)
		}
	}
	return row[len(b)]
}
