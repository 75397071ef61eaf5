/** What a metadata block was verified as, packed in a number that is kept with the block. */
export const Structure = { extents: 1, directory: 2, attributes: 3 } as const;

/** @param owner inode number (below 2^32). @param detail below 8: what else the check depended on. */
export const verifiedAs = (structure: number, owner: number, detail = 0) => (owner * 8 + detail) * 4 + structure;
