package tasklogs

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	v1 "tasklogs/clients/go/tasklogs/v1"
)

type vector struct {
	Why    string
	Base   string
	Pieces []struct {
		From, Bytes int64
		Text        string
	}
	CRC32  uint32
	Result string
	Error  string
}

func (v vector) delta() *v1.ContentDelta {
	delta := &v1.ContentDelta{Crc32: &v.CRC32}
	for _, piece := range v.Pieces {
		delta.Pieces = append(delta.Pieces, &v1.ContentDelta_Piece{
			From: piece.From, Bytes: piece.Bytes, Text: piece.Text,
		})
	}
	return delta
}

// The vectors are those of every implementation.
func TestDeltasGiveWhatTheVectorsSay(t *testing.T) {
	text, err := os.ReadFile("../../../tests/data/delta_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct{ Applied, Refused []vector }
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, vector := range vectors.Applied {
		t.Run(vector.Why, func(t *testing.T) {
			got, _, err := contentOf(vector.Base).patched(vector.delta())
			if err != nil || string(got.data) != vector.Result || got.crc != vector.CRC32 {
				t.Errorf("%q, crc %d, %v", got.data, got.crc, err)
			}
		})
	}
	for _, vector := range vectors.Refused {
		t.Run(vector.Why, func(t *testing.T) {
			before := contentOf(vector.Base)
			got, _, err := before.patched(vector.delta())
			if err == nil || strings.Contains(err.Error(), "checksum") != (vector.Error == "checksum") {
				t.Errorf("the error is %v", err)
			}
			if string(got.data) != vector.Base || got.crc != before.crc {
				t.Errorf("it changed the base to %q", got.data)
			}
		})
	}
	if len(vectors.Applied) == 0 || len(vectors.Refused) == 0 {
		t.Error("there are no vectors")
	}
}

func TestAResultIsBoundedBeforeItIsBuilt(t *testing.T) {
	base := contentOf(strings.Repeat("a", 1<<20))
	delta := &v1.ContentDelta{Crc32: new(uint32)}
	for range maxPieces {
		delta.Pieces = append(delta.Pieces, &v1.ContentDelta_Piece{Bytes: 1 << 20})
	}
	if _, _, err := base.patched(delta); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("the error is %v", err)
	}
}
