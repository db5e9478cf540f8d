//! Control sockets between the processes of a rehearsal: one JSON line asked, one answered.
