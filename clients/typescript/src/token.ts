/** A bearer token, or a function that returns one. */
export type Token = string | (() => string | Promise<string>);

/** The caller's token function threw. `cause` is what it threw. */
export class TokenFailed extends Error {
  override readonly name = "TokenFailed";
}

/** Return the headers of a call. White space around the token is removed: files end with a newline. */
export async function headersOf(token: Token | undefined): Promise<Record<string, string>> {
  if (token === undefined) {
    return {};
  }
  let text: string;
  try {
    text = typeof token === "function" ? await token() : token;
  } catch (cause) {
    throw new TokenFailed("the token function failed", { cause });
  }
  return { authorization: `Bearer ${text.trim()}` };
}
