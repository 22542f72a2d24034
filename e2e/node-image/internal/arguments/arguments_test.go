package arguments

import (
	"slices"
	"testing"
)

func TestMerge(t *testing.T) {
	ours := []string{"--a=1", "--list=x,y", "--c=3"}
	for _, one := range []struct{ users, want []string }{
		{nil, ours},
		{[]string{"a=9"}, []string{"--list=x,y", "--c=3", "--a=9"}},
		{[]string{"--new"}, []string{"--a=1", "--list=x,y", "--c=3", "--new"}},
		{[]string{"list+=z"}, []string{"--a=1", "--list=x,y,z", "--c=3"}},
		{[]string{"other+=z"}, []string{"--a=1", "--list=x,y", "--c=3", "--other=z"}},
		{[]string{"r=1", "r=2"}, []string{"--a=1", "--list=x,y", "--c=3", "--r=1", "--r=2"}},
	} {
		if got := Merge(ours, one.users); !slices.Equal(got, one.want) {
			t.Errorf("%q: %q, want %q", one.users, got, one.want)
		}
	}
}
