/** A signal, and how to cut its links when it is no longer needed. */
export interface Linked {
  readonly signal: AbortSignal;
  readonly unlink: () => void;
}

/**
 * Return a signal that is aborted when any of `signals` is, with its reason, until `unlink`.
 *
 * Of AbortSignal.any, Node.js 20 keeps about 50 bytes per call as long as one of the signals lives,
 * and the client's own lives as long as the client.
 */
export function linked(...signals: (AbortSignal | undefined)[]): Linked {
  const controller = new AbortController();
  const links = signals.flatMap((signal) => {
    if (signal === undefined) {
      return [];
    }
    const pass = (): void => {
      controller.abort(signal.reason);
    };
    if (signal.aborted) {
      pass();
    } else {
      signal.addEventListener("abort", pass, { once: true });
    }
    return [{ signal, pass }];
  });
  return {
    signal: controller.signal,
    unlink: () => {
      for (const { signal, pass } of links) {
        signal.removeEventListener("abort", pass);
      }
    },
  };
}
