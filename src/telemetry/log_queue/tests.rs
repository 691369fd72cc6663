use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::*;

/// A log whose every write takes its result from a channel; it blocks while the channel is empty.
struct Scripted {
    orders: Receiver<Order>,
    written: Arc<Mutex<Vec<u8>>>,
}

enum Order {
    Take(usize),
    Fail(ErrorKind),
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.orders.recv() {
            Ok(Order::Take(most)) => {
                let count = most.min(bytes.len());
                self.written.lock().expect("one writer").extend_from_slice(&bytes[..count]);
                Ok(count)
            }
            Ok(Order::Fail(kind)) => Err(kind.into()),
            // The test is over.
            Err(_) => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn scripted(orders: impl IntoIterator<Item = Order>) -> (LogQueue, Flush, Sender<Order>, Arc<Mutex<Vec<u8>>>) {
    let (sender, receiver) = channel();
    for order in orders {
        sender.send(order).expect("the log listens");
    }
    let written = Arc::<Mutex<Vec<u8>>>::default();
    let log = Scripted { orders: receiver, written: Arc::clone(&written) };
    let (queue, flush) = LogQueue::start(log).expect("a thread");
    (queue, flush, sender, written)
}

fn text(written: &Mutex<Vec<u8>>) -> String {
    String::from_utf8(written.lock().expect("one writer").clone()).expect("lines are UTF-8")
}

#[test]
fn lines_are_written_in_order_whatever_the_log_takes_at_a_time() {
    let takes = (0..100).map(|_| Order::Take(7));
    let (queue, flush, _orders, written) = scripted(takes);
    let lines: Vec<String> = (0..20).map(|number| format!("line number {number}\n")).collect();
    for line in &lines {
        (&queue).write_all(line.as_bytes()).expect("it never fails");
    }
    drop(flush);
    assert_eq!(text(&written), lines.concat());
}

#[test]
fn a_log_that_takes_nothing_costs_lines_and_no_time() {
    let (queue, flush, orders, written) = scripted([]);
    let line = vec![b'x'; 1024 * 1024];
    let began = Instant::now();
    for _ in 0..100 {
        (&queue).write_all(&line).expect("it never fails");
    }
    let state = queue.lock();
    assert!(
        state.queued.len() + state.in_flight <= CAPACITY,
        "{} and {} bytes are held",
        state.queued.len(),
        state.in_flight
    );
    assert_eq!(state.lost, 84);
    drop(state);
    drop(flush);
    assert!(began.elapsed() < Duration::from_secs(5), "the exit waits no longer than a second: {:?}", began.elapsed());
    assert_eq!(text(&written), "");
    drop(orders);
}

#[test]
fn a_line_behind_a_torn_one_begins_anew() {
    let full = [Order::Take(9), Order::Fail(ErrorKind::StorageFull)];
    let (queue, _flush, orders, written) = scripted(full);
    (&queue).write_all(b"first\nsecond\n").expect("it never fails");
    // Known once the loss is counted.
    let began = Instant::now();
    while queue.lock().lost == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "no loss is counted");
        thread::yield_now();
    }
    for order in VecDeque::from([Order::Take(1), Order::Take(100)]) {
        orders.send(order).expect("the log listens");
    }
    drop(Flush(queue.clone()));
    (&queue).write_all(b"third\n").expect("it never fails");
    drop(Flush(queue.clone()));
    assert_eq!(text(&written), "first\nsec\nthird\n");
    assert_eq!(queue.lock().lost, 0, "what was lost has been reported");
}

#[test]
fn a_log_that_would_block_is_tried_again() {
    let busy = [Order::Fail(ErrorKind::WouldBlock), Order::Fail(ErrorKind::Interrupted), Order::Take(100)];
    let (queue, flush, _orders, written) = scripted(busy);
    (&queue).write_all(b"line\n").expect("it never fails");
    drop(flush);
    assert_eq!(text(&written), "line\n");
}
