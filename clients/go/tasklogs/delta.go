package tasklogs

import (
	"fmt"
	"hash/crc32"
	"unicode/utf8"

	v1 "tasklogs/clients/go/tasklogs/v1"
)

const (
	maxPieces       = 4096
	maxContentBytes = maxMessageBytes // a stream that makes an entry grow must not fill the memory
)

// content is a content that deltas change, and its CRC-32.
type content struct {
	data []byte
	crc  uint32
}

func contentOf(text string) content {
	data := []byte(text)
	return content{data: data, crc: crc32.ChecksumIEEE(data)}
}

// patched returns c with delta applied, and whether that only appends to it. It changes nothing of
// c that c itself can see, so c stays valid if the delta is refused.
func (c content) patched(delta *v1.ContentDelta) (content, bool, error) {
	pieces := delta.GetPieces()
	if len(pieces) < 1 || len(pieces) > maxPieces {
		return c, false, fmt.Errorf("has %d pieces, not 1 to %d", len(pieces), maxPieces)
	}
	if delta.Crc32 == nil {
		return c, false, fmt.Errorf("has no checksum")
	}
	var total int64
	for _, piece := range pieces {
		from, length := piece.GetFrom(), piece.GetBytes()
		size := int64(len(c.data))
		if from < 0 || length < 0 || from > size || length > size-from {
			return c, false, fmt.Errorf("keeps %d bytes from %d on of %d", length, from, size)
		}
		if !isBoundary(c.data, int(from)) || !isBoundary(c.data, int(from+length)) {
			return c, false, fmt.Errorf("keeps a range that ends inside a code point")
		}
		// Pieces may repeat ranges: 4096 pieces of 1 MiB must not be joined.
		total += length + int64(len(piece.GetText()))
		if total > maxContentBytes {
			return c, false, fmt.Errorf("has a result of more than %d bytes", maxContentBytes)
		}
	}
	first := pieces[0]
	appends := len(pieces) == 1 && first.GetFrom() == 0 && first.GetBytes() == int64(len(c.data))
	var next content
	if appends {
		// The growth of an entry in many steps must not copy it each time.
		text := first.GetText()
		next.data = append(c.data, text...)
		next.crc = crc32.Update(c.crc, crc32.IEEETable, []byte(text))
	} else {
		data := make([]byte, 0, total)
		for _, piece := range pieces {
			data = append(data, c.data[piece.GetFrom():piece.GetFrom()+piece.GetBytes()]...)
			data = append(data, piece.GetText()...)
		}
		next = content{data: data, crc: crc32.ChecksumIEEE(data)}
	}
	if next.crc != delta.GetCrc32() {
		return c, false, fmt.Errorf("has a result with another checksum")
	}
	return next, appends, nil
}

// isBoundary reports whether data, valid UTF-8, can be cut at byte at.
func isBoundary[T string | []byte](data T, at int) bool {
	return at == len(data) || utf8.RuneStart(data[at])
}

// commonText returns how many leading bytes a and b share, up to a boundary of both.
func commonText(a, b string) int {
	shared, most := 0, min(len(a), len(b))
	for shared < most && a[shared] == b[shared] {
		shared++
	}
	for !isBoundary(a, shared) || !isBoundary(b, shared) {
		shared--
	}
	return shared
}
