/** Whom to tell when a pass is waited for: a terminal, or what stands for it. */
export interface Waiting {
  /** A line, once. */
  note(line: string): void;
  /** A bar; `total` in bytes. */
  progress(title: string, total: number | undefined): { update(done: number, words?: string): void; stop(): void };
}

/** Nobody. */
export const silently: Waiting = { note() {}, progress: () => ({ update() {}, stop() {} }) };
