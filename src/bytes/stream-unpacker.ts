/** A packed stream that is unpacked step by step, in memory that doesn't grow with it. */
export interface StreamUnpacker {
  /** Bytes of the input that the last step used up. */
  readonly consumed: number;
  /** Bytes that the last step left at the start of the target. */
  readonly produced: number;
  /** Whether the stream has come to its end. */
  readonly ended: boolean;
  /**
   * Takes of `input` and gives to `target` as much as it can. A step that neither consumes nor produces wants more input.
   * @throws ImageError `corrupt`, without a file's name
   */
  step(input: Uint8Array, target: Uint8Array): void;
  /** Gives back what the library holds; nothing may be called after it. */
  close(): void;
}
