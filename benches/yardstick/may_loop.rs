//! The floor of the runtime: a coroutine a connection, one read and one write a request, buffers held only while busy.

use std::cell::RefCell;
use std::io::{ErrorKind, Read};

use may::io::{CoIo, WaitIo};
use snip::limits::CONNECTION_STACK_WORDS;
use snip::runtime;
use socket2::Socket;

use super::{INPUT_BYTES, answer_all};

thread_local! {
    static BUFFERS: RefCell<Vec<(Vec<u8>, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
}

pub fn serve(listener: Socket) {
    runtime::init();
    let accepting = move || {
        let io = CoIo::new(listener).expect("the reactor");
        loop {
            match io.inner().accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(true).expect("an option");
                    runtime::spawn_here(CONNECTION_STACK_WORDS, move || connection(socket)).expect("a coroutine");
                }
                Err(_) => {
                    io.wait_io();
                }
            }
        }
    };
    runtime::spawn(CONNECTION_STACK_WORDS, accepting).expect("a coroutine");
    loop {
        std::thread::park();
    }
}

fn connection(socket: Socket) {
    let Ok(io) = CoIo::new(socket) else { return };
    loop {
        io.wait_io();
        let taken = BUFFERS.with_borrow_mut(Vec::pop);
        let (mut input, mut output) = taken.unwrap_or_else(|| (vec![0; INPUT_BYTES], Vec::with_capacity(INPUT_BYTES)));
        let goes_on = turn(&io, &mut input, &mut output);
        BUFFERS.with_borrow_mut(|pool| pool.push((input, output)));
        if !goes_on {
            return;
        }
    }
}

/// Answers what is there. A request that is cut in two by a read is read on here: load generators hardly do that.
fn turn(io: &CoIo<Socket>, input: &mut [u8], output: &mut Vec<u8>) -> bool {
    let mut held = 0;
    loop {
        match (&mut io.inner()).read(&mut input[held..]) {
            Ok(0) => return false,
            Ok(count) => {
                let drained = held + count < input.len();
                held += count;
                let taken = answer_all(&input[..held], output);
                input.copy_within(taken..held, 0);
                held -= taken;
                let sent = io.inner().send(output).is_ok_and(|sent| sent == output.len());
                output.clear();
                if !sent || (drained && held == 0) {
                    return sent;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && held == 0 => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                io.wait_io();
            }
            Err(_) => return false,
        }
    }
}
