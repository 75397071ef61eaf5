/** The option by which a command takes one of several disks: of an appliance (OVA), of a folder of Clonezilla. */
export const diskOption = {
  disk: {
    type: "string",
    describe: "Of an image that holds several disks (OVA, Clonezilla) this one, by its name there",
  },
} as const;
