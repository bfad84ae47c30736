import { describe, expect, it } from '@jest/globals';
import { FrameReader, maskedFrame, OPCODE } from './frames.mjs';

interface Frame {
  opcode: number;
  payload: string;
}

function frame(payload: string): Buffer {
  const { length } = payload;
  let head = Buffer.from([0x81, length]);
  if (length > 125) {
    head = Buffer.from([0x81, 126, 0, 0]);
    head.writeUInt16BE(length & 0xffff, 2);
  }
  if (length > 65_535) {
    head = Buffer.from([0x81, 127, 0, 0, 0, 0, 0, 0, 0, 0]);
    head.writeBigUInt64BE(BigInt(length), 2);
  }
  return Buffer.concat([head, Buffer.from(payload)]);
}

/** Frames as they come out of a stream that is read in pieces of so many bytes. */
function read(stream: Buffer, pieceLength: number): Frame[] {
  const frames: Frame[] = [];
  const reader = new FrameReader((opcode, bytes, start, end) => {
    frames.push({ opcode, payload: Buffer.from(bytes.subarray(start, end)).toString() });
  });
  // One buffer for every read, as the generator has it: nothing may be kept in it between two reads.
  const buffer = Buffer.alloc(Math.min(pieceLength, stream.length));
  for (let at = 0; at < stream.length; at += pieceLength) {
    buffer.fill(0xff);
    reader.read(buffer, 0, stream.copy(buffer, 0, at, at + pieceLength));
  }
  return frames;
}

describe('Reading frames', () => {
  it.each([0, 1, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 70_000])(
    'finds a payload of %d bytes between two others',
    (length) => {
      const payloads = ['before', 'x'.repeat(length), 'after'];
      const frames = payloads.map((payload) => ({ opcode: OPCODE.text, payload }));
      expect(read(Buffer.concat(payloads.map(frame)), 1 << 20)).toEqual(frames);
    },
  );

  it('finds the same frames wherever reads cut the stream', () => {
    const payloads = ['', 'a', 'x'.repeat(125), 'y'.repeat(126), 'z'.repeat(300), ''];
    const stream = Buffer.concat(payloads.map(frame));
    const whole = read(stream, stream.length);
    expect(whole.map(({ payload }) => payload)).toEqual(payloads);
    for (let pieceLength = 1; pieceLength < stream.length; pieceLength++) {
      expect(read(stream, pieceLength)).toEqual(whole);
    }
  });

  it('finds a frame with an eight-byte length that is cut anywhere in its head', () => {
    const stream = Buffer.concat([frame('a'), frame('x'.repeat(65_536)), frame('b')]);
    for (const pieceLength of [1, 4, 5, 7, 11, 12, 13, 4_096]) {
      expect(read(stream, pieceLength).map(({ payload }) => payload.length)).toEqual([1, 65_536, 1]);
    }
  });

  it('refuses what only a client may send', () => {
    const masked = maskedFrame(OPCODE.text, Buffer.from('hello'));
    expect(() => read(masked, masked.length)).toThrow('masked');
  });
});
