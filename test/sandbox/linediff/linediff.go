// Package linediff compares two texts line by line, for the failures of tests with golden texts.
// It does not know Loden.
package linediff

import "strings"

// Of returns the lines in which two texts differ, in the order of the texts: "-" before a
// line that only want has, "+" before a line that only got has. It returns "" for equal texts.
func Of(want, got string) string {
	if want == got {
		return ""
	}
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	common := longestCommon(a, b)
	var out strings.Builder
	for len(a) > 0 || len(b) > 0 {
		for len(a) > 0 && (len(common) == 0 || a[0] != common[0]) {
			out.WriteString("-" + a[0] + "\n")
			a = a[1:]
		}
		for len(b) > 0 && (len(common) == 0 || b[0] != common[0]) {
			out.WriteString("+" + b[0] + "\n")
			b = b[1:]
		}
		if len(common) > 0 {
			a, b, common = a[1:], b[1:], common[1:]
		}
	}
	return out.String()
}

// longestCommon returns the longest sequence of lines that both texts have in this order. It
// takes time and memory in proportion to the product of the lengths: enough for golden files.
func longestCommon(a, b []string) []string {
	length := make([][]int, len(a)+1) // length[i][j]: of the answer for a[i:] and b[j:]
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	var out []string
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			out = append(out, a[i])
			i, j = i+1, j+1
		case length[i+1][j] >= length[i][j+1]:
			i++
		default:
			j++
		}
	}
	return out
}
