package classify

import "encoding/binary"

// records has one for each Row, of stride bytes in whole cache lines, so that
// what a lookup needs of a small row is in one line. A record begins with where
// the cells of the row begin, in 32 bits. Then come the local port classes of
// all port classes, and the numbers of the row's pages, by class/pageSize.
type records struct {
	layout
	bytes []byte
}

// layout says how wide the parts of a record are, and where they are.
type layout struct {
	stride int
	pages  int  // where the numbers of the pages begin
	wide   bool // 32 bits for each, instead of 8 for a local port class and 16 for a page
}

// localAt is where the local port classes of a record begin.
const localAt = 4

// cacheLine is how many bytes come at once.
const cacheLine = 64

func layRecords(portClasses, columns, pages int) layout {
	l := layout{pages: (localAt + portClasses + 1) &^ 1}
	end := l.pages + 2*columns
	if portClasses > 1<<8 || pages > 1<<16 {
		l.wide, l.pages = true, localAt+4*portClasses
		end = l.pages + 4*columns
	}
	l.stride = (end + cacheLine - 1) &^ (cacheLine - 1)
	return l
}

// put writes the record of a row.
func (r *records) put(at Row, row *bookRow) {
	b := r.bytes[int(at)*r.stride:][:r.stride]
	binary.LittleEndian.PutUint32(b, row.cells)
	for i, class := range row.local {
		if r.wide {
			binary.LittleEndian.PutUint32(b[localAt+4*i:], class)
		} else {
			b[localAt+i] = uint8(class)
		}
	}
	for i, page := range row.pages {
		if r.wide {
			binary.LittleEndian.PutUint32(b[r.layout.pages+4*i:], page)
		} else {
			binary.LittleEndian.PutUint16(b[r.layout.pages+2*i:], uint16(page))
		}
	}
}
