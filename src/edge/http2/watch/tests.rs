use std::time::Duration;

use proptest::prelude::*;

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What happens on a connection, in order.
enum Step {
    /// The client sends a frame.
    Client(Vec<u8>),
    /// We send one.
    Us(Vec<u8>),
    /// So long nothing.
    Pause(Duration),
}

use Step::{Client, Pause, Us};

/// Which of the client's frames, counted from 1, is too much and of what; none if all are fine.
fn check(steps: impl IntoIterator<Item = Step>, expected: Option<(usize, Flood)>) {
    let (mut watch, mut now, mut frames) = begun();
    let mut found = None;
    for step in steps {
        match step {
            Pause(time) => now += time,
            Us(bytes) => watch.sent(&bytes, |_| ()),
            Client(bytes) => {
                frames += 1;
                found = found.or(watch.received(&bytes, || now).err().map(|flood| (frames, flood)));
            }
        }
    }
    assert_eq!(found, expected);
}

fn begun() -> (Watch, Instant, usize) {
    let now = Instant::now();
    let mut watch = Watch::new(now);
    watch.received(PREFACE, || now).expect("the preface is fine");
    (watch, now, 0)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [&[a, b, c, kind, flags, d, e, f, g], payload].concat()
}

fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(0, 0, stream, payload)
}

fn last_data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(0, 1, stream, payload)
}

fn headers(stream: u32) -> Vec<u8> {
    frame(1, 4, stream, b"head")
}

fn last_headers(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, b"head")
}

fn priority(stream: u32) -> Vec<u8> {
    frame(2, 0, stream, &[0; 5])
}

fn reset(stream: u32, code: u8) -> Vec<u8> {
    frame(3, 0, stream, &[0, 0, 0, code])
}

fn settings(entries: usize) -> Vec<u8> {
    frame(4, 0, 0, &[0; 6].repeat(entries))
}

fn ack() -> Vec<u8> {
    frame(4, 1, 0, b"")
}

fn ping() -> Vec<u8> {
    frame(6, 0, 0, &[0; 8])
}

fn window_update(stream: u32) -> Vec<u8> {
    frame(8, 0, stream, &[0, 0, 1, 0])
}

fn continuation(flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(9, flags, 1, payload)
}

/// The client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

fn forever(make: impl Fn() -> Vec<u8>) -> impl Iterator<Item = Step> {
    (0..200_000).map(move |_| Client(make()))
}

#[test]
fn pings_without_answers_of_ours_are_a_flood() {
    check(forever(ping), Some((201, Flood::Ping)));
    check(forever(|| frame(6, 1, 0, &[0; 8])), Some((201, Flood::Ping)));
}

#[test]
fn settings_over_and_over_are_a_flood() {
    check(forever(|| settings(1)), Some((101, Flood::Settings)));
    check(forever(ack), Some((101, Flood::Settings)));
    check(forever(|| settings(2730)), Some((2, Flood::Settings)));
}

#[test]
fn streams_reset_at_once_are_a_flood() {
    let steps = streams(10_000).flat_map(|n| [Client(last_headers(n)), Client(reset(n, 8))]);
    check(steps, Some((1002, Flood::Reset)));
}

#[test]
fn every_other_stream_reset_at_once_is_still_a_flood() {
    let steps =
        streams(10_000).flat_map(|n| [Client(last_headers(n)), Client(reset(n, 8)), Client(reset(n, 8)), Us(last_headers(n))]);
    check(steps, Some((1500, Flood::Reset)));
}

#[test]
fn streams_misused_so_that_we_reset_them_are_a_flood() {
    let steps = streams(10_000).flat_map(|n| [Client(last_headers(n)), Client(data(n, b"x")), Us(reset(n, 1))]);
    check(steps, Some((1003, Flood::Reset)));
}

#[test]
fn priorities_without_requests_are_a_flood() {
    check(forever(|| priority(1)), Some((101, Flood::Priority)));
    check(forever(|| frame(0x10, 0, 0, &[0; 4])), Some((101, Flood::Priority)));
}

#[test]
fn window_updates_without_data_of_ours_are_a_flood() {
    check(forever(|| window_update(1)), Some((1001, Flood::WindowUpdate)));
}

#[test]
fn credit_has_an_end() {
    let sent = (0..1_000_000).map(|_| Us(data(1, b"x")));
    check(sent.chain(forever(|| window_update(1))), Some((100_001, Flood::WindowUpdate)));
}

#[test]
fn data_without_data_is_a_flood() {
    check(forever(|| data(1, b"")), Some((101, Flood::EmptyData)));
    check(forever(|| frame(0, 8, 1, &[3, 0, 0, 0])), Some((101, Flood::EmptyData)));
}

#[test]
fn headers_without_headers_are_a_flood() {
    check(forever(|| frame(1, 4, 1, b"")), Some((101, Flood::EmptyHeaders)));
    check(forever(|| frame(1, 0x24, 1, &[0; 5])), Some((101, Flood::EmptyHeaders)));
}

#[test]
fn a_header_block_in_too_many_parts_is_a_flood() {
    let block = |parts| [Client(frame(1, 0, 1, b"h"))].into_iter().chain((0..parts).map(|_| Client(continuation(0, b"h"))));
    check(block(8), None);
    check(block(9), Some((10, Flood::Continuation)));
    check((0..100).flat_map(|_| block(8)), None);
}

#[test]
fn a_block_of_empty_parts_is_paid_for() {
    let block = || [frame(1, 0, 1, b"h"), continuation(0, b""), continuation(0, b""), continuation(4, b"")].map(Client);
    check((0..100).flat_map(|_| block()), Some((202, Flood::EmptyHeaders)));
}

#[test]
fn an_oversized_frame_is_refused_by_its_head() {
    check([Client(data(1, &[0; 16_384]))], None);
    check([Client(b"\0\x40\x01\0\0\0\0\0\x01".to_vec())], Some((1, Flood::OversizedFrame)));
}

#[test]
fn unknown_frames_over_and_over_are_a_flood() {
    check(forever(|| frame(0xfa, 0, 0, b"grease")), Some((101, Flood::UnknownFrame)));
    check(forever(|| frame(7, 0, 0, &[0; 8])), Some((101, Flood::UnknownFrame)));
}

#[test]
fn time_brings_a_budget_back_but_no_more_than_its_burst() {
    let pings = |count| (0..count).map(|_| Client(ping()));
    check(pings(200).chain([Pause(Duration::from_secs(5))]).chain(pings(51)), Some((251, Flood::Ping)));
    check(pings(200).chain([Pause(Duration::from_secs(9000))]).chain(pings(201)), Some((401, Flood::Ping)));
}

#[test]
fn a_flood_stays_one() {
    check(forever(ping).take(201).chain([Pause(Duration::from_secs(60)), Client(headers(1))]), Some((201, Flood::Ping)));
    let (mut watch, now, _) = begun();
    assert_eq!(watch.received(b"\xff\xff\xff\0\0\0\0\0\x01", || now), Err(Flood::OversizedFrame));
    assert_eq!(watch.received(&last_headers(1), || now), Err(Flood::OversizedFrame));
}

#[test]
fn grpc_measures_bandwidth_with_a_ping_for_each_message() {
    let message = || [Us(data(1, b"message")), Client(ping()), Client(window_update(0)), Us(frame(6, 1, 0, &[0; 8]))];
    let second = || (0..10_000).flat_map(move |_| message());
    check([Client(headers(1))].into_iter().chain((0..5).flat_map(|_| second())), None);
}

#[test]
fn browsers_give_back_the_window_of_each_data_frame() {
    let chunk = |n| [Us(data(n, &[0; 1000])), Client(window_update(n)), Client(window_update(0))];
    let download = |n| [Client(last_headers(n)), Us(headers(n))].into_iter().chain((0..1000).flat_map(move |_| chunk(n)));
    check(streams(100).flat_map(download), None);
}

#[test]
fn small_reads_of_a_large_frame_give_back_window_in_small_steps() {
    let frame = || [Us(data(1, &[0; 1 << 20]))].into_iter().chain((0..512).map(|_| Client(window_update(1))));
    check((0..20).flat_map(|_| frame()), None);
}

#[test]
fn nghttp2_begins_with_five_priorities() {
    let start = [settings(2), ack()].into_iter().chain([3, 5, 7, 9, 11].map(priority)).chain([last_headers(13)]);
    check(start.map(Client), None);
}

#[test]
fn a_browser_that_leaves_a_page_cancels_a_hundred_streams() {
    let page = |first: u32| {
        let streams = move || streams(100).map(move |n| first + n);
        streams()
            .map(|n| Client(last_headers(n)))
            .chain(streams().map(|n| Client(reset(n, 8))))
            .chain([Pause(Duration::from_secs(1))])
    };
    check((0..100).flat_map(|n| page(n * 1000)), None);
}

#[test]
fn grpc_cancels_each_stream_that_it_is_done_with() {
    let call = |n| [Client(headers(n)), Client(data(n, b"ask")), Us(headers(n)), Us(data(n, b"answer")), Client(reset(n, 8))];
    check(streams(50_000).flat_map(call), None);
}

#[test]
fn an_upload_in_small_parts_passes() {
    let parts = (0..50_000).flat_map(|_| [Client(data(1, b"x")), Us(window_update(1))]);
    check([Client(headers(1))].into_iter().chain(parts).chain([Client(last_data(1, b""))]), None);
}

#[test]
fn ten_thousand_requests_pass() {
    let request = |n| [Client(headers(n)), Client(last_data(n, b"")), Us(headers(n)), Us(data(n, b"page")), Us(last_headers(n))];
    check(streams(10_000).flat_map(request), None);
}

#[test]
fn a_request_of_empty_trailers_passes() {
    check(streams(1000).flat_map(|n| [Client(headers(n)), Client(frame(1, 5, n, b""))]), None);
}

#[test]
fn settings_of_ours_may_be_acknowledged() {
    check((0..1000).flat_map(|_| [Us(settings(3)), Client(ack())]), None);
}

#[test]
fn what_we_ended_is_told_with_its_code() {
    let (mut watch, ..) = begun();
    let mut told = Vec::new();
    let bytes = [headers(1), reset(1, 7), super::super::goaway(1, Code::ENHANCE_YOUR_CALM).to_vec()].concat();
    bytes.chunks(5).for_each(|part| watch.sent(part, |ended| told.push(ended)));
    assert_eq!(told, [Ended::Stream(Code(7)), Ended::Connection(Code::ENHANCE_YOUR_CALM)]);
}

#[test]
fn a_goaway_of_ours_fits_only_between_frames() {
    let (mut watch, now, _) = begun();
    watch.received(&[last_headers(5), last_headers(3)].concat(), || now).expect("two requests are fine");
    assert_eq!(watch.last_stream(), 5);
    let bytes = data(5, b"page");
    for (count, byte) in bytes.iter().enumerate() {
        assert_eq!(watch.at_boundary(), count == 0);
        watch.sent(&[*byte], |_| ());
    }
    assert!(watch.at_boundary());
}

#[test]
fn the_clock_is_read_only_for_frames_that_cost() {
    let (mut watch, now, _) = begun();
    let request = [headers(1), data(1, b"body"), last_data(1, b"")].concat();
    watch.received(&request, || unreachable!("no such frame")).expect("a request is fine");
    let mut read = 0;
    let pings = ping().repeat(10);
    watch
        .received(&pings, || {
            read += 1;
            now
        })
        .expect("ten are fine");
    assert_eq!(read, 1);
}

/// Any frames of a client, runs of the same among them.
fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let one = (0u8..12, any::<u8>(), 0u32..9, prop::collection::vec(any::<u8>(), 0..20), 1usize..300);
    prop::collection::vec(
        one.prop_map(|(kind, flags, stream, payload, times)| frame(kind, flags, stream, &payload).repeat(times)),
        0..12,
    )
    .prop_map(|frames| frames.concat())
}

fn verdict(bytes: &[u8], sizes: &[usize]) -> (Result<(), Flood>, u32) {
    let (mut watch, now, _) = begun();
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while let (false, Some(size)) = (rest.is_empty(), sizes.next()) {
        let (part, after) = rest.split_at((*size).min(rest.len()));
        let _ = watch.received(part, || now);
        rest = after;
    }
    (watch.received(b"", || now), watch.last_stream())
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_cut(bytes in any_frames(), sizes in prop::collection::vec(1usize..100, 1..9)) {
        prop_assert_eq!(verdict(&bytes, &sizes), verdict(&bytes, &[usize::MAX]));
    }

    #[test]
    fn any_bytes_are_judged_and_told_of(bytes: Vec<u8>, sizes in prop::collection::vec(1usize..40, 1..9)) {
        prop_assert_eq!(verdict(&bytes, &sizes), verdict(&bytes, &[usize::MAX]));
        let (mut watch, ..) = begun();
        watch.sent(&bytes, |_| ());
    }
}
