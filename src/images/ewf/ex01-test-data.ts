/**
 * Tests only: two Ex01 images of one disk as libewf 20260627 writes them, packed with gzip. The tools of Debian's
 * ewf-tools are too old for the format.
 */
import { gunzipSync } from "node:zlib";

const unpacked = (text: string) => gunzipSync(Buffer.from(text, "base64"));

/** The disk: 8 KiB of zeros, 8 KiB of one byte, text, and the rest of its last chunk of 8 KiB. */
export const ex01Disk = Buffer.alloc(42496);
ex01Disk.fill(0xab, 8192, 16384);
for (let line = 0, at = 16384; at < ex01Disk.length; line++) at += ex01Disk.write(`line ${line} of the evidence\n`, at);

/** By ewfacquire: chunks of 16 sectors, packed with zlib, and patterns. */
export const ex01Zlib = unpacked(
  "H4sIAAAAAAACA3MNczPi5WpkYGJkZGBkYGBYa3ZjrmuSr+KWVtaXG+yWP6mYo9sbzdVgwMPyfPteX9GDryO6Q1Yo3fq8+nYA02ZPs/73vBV8Ym" +
    "V+qf0vQtQ3ChxdNU9ZWnj1xq7pZreu5PoZupXOnlx6MvJMj+3tXVZqTM1bar/9KZUX+MQAB4wMqCABSjsAMRcDfrCGwUK6Yk5p32neQwYCLs+z" +
    "wicKcQTJaDRIL2pPUJrCzHeoLUCk9yLLhwjXOxO25h/fLP/776qnpUHLHTmnXvCb+ObK+T2HlzBZ332wguf0G5HL1bOtDuf8WsE950Icu22h8j" +
    "kH98bFuX0+6d/CV+18u6VFOu7F270Tz82rWur+dIVuBwPzzqXJ2fb7br3PmrNV6saFi1mu/56zPYrmtq86x+66Q7Uc6kYmKN0ApRcg+Y+dgP+y" +
    "GEUcYOzVUFBxq/Smd9/lBIHWi5arTwjV5P/8nmwr4OK9Nq0pwj7pnfHam8tVzhVefX78+u+te+v+1/z9+bVu7/+6PxX1tfX1v//Yn/u84/zjSr" +
    "n35x9/tbGbd/z55x9VcvdPBKpZNV9YYOLBG9V8Y4HZCd6q7nuvil3zL0Z/EdsLpZrvOb5/0d0DJBeUX7B+IfuFr6r8y7sXdy/ufj29+57sXmsY" +
    "9wIUflnh9B4GG+8x72Wv4v8i98L2S44blOv/Zd4L24vVi767vO+8F1zvBuE4vW+9x71XvEr/S9yLvReqX94XB3Lyv9x7sfdi9eLvbu9770nvNa" +
    "/KL2y+J2Bh1pksbGk2M1nYymxlsrC12c5kYRuzqbOjtNS3rdAt6r6ntENDb5L3s64LU4Nmak3frVTh+qnrhehN7UPhS9Z3xE/cb8Sy7ZTrhhMJ" +
    "goeUWl15umXEHHUmRbhsfFOzPWCniVihzqcIlk0eKYInlSa7anSHTDt6XWsqd9rEM0qzXM26C8Re6jyKfLKZI8Pyh9vKIkldp6glWzoyJ15WWu" +
    "Ea1L1CLFJXPX5ZqN4617juA2KdukrRKds4cifeUtr29JGc49NJ0S7bT+QJ3lPa61rT/UeMUU8oJm9dwA7ni0Kubat5wiXXGcWk7jhVMPWh1uHQ" +
    "tuwddkE7UQWnVhvrndtjGWxZnh4zr7D62FfJ7+kxC06C5Up3mITsRDdjNc/1ub+Dpp6Gc+HysTGiq2MwLX19UHfnKWT9UPl5NgIrsCk/ersDm/" +
    "J7Ntwf9ZYcnsBjbnTnRIHy4V4kxkNPn6eYokZ3plx3ADoUSZR3/QKbZjupd/KPU2umoOYRYH64Zth3h42B5WDM+h3qMjuNnT/ZXuMSSpgj7Pje" +
    "XMZqxY7F5169/vuxaq78/z8/fvz9/Pfjv8+vf/9+vf779v31tX/F47gCVxwS0WuNfuh4YvmhhQs+v7Cx6j+3GEKt/vxqj9V6JKrGav655Z9fIl" +
    "H6c+Ot9pfUvfxz6efSz97Pp0MESute/7n2c+3n6Ofbz+XPvQ8RuPhz8Wf35/3n5OfaW9WX/HsBFGj+XFOnJcO1/JC3IlfojENLC7Rf/Lnwc+Fn" +
    "5+ft5/jnylvZl9RBBIKfLz/nP3e+lX1p3as/V36uBAvEW9W/jGnr5hGX1DOKSdlxomDiQ6XDrgMsgCURDHkB37bZPOaSeUZ3UnacLJj8UI2+Av" +
    "+N7+yPjyzshaX3nb2hjAwsjvM1zFpqr5/zsfkg6MEh4/LHI8IidfvVuNrKv3/+/Pry+Pf567ePH/99e/36/P37996Lq99X/9MelNSAicyGSx6U" +
    "7AUWoaR2IIWa2kEUampf/vmhzfv3XO2HVhZo3uHqP9TuJLJqAWZqBQlgpFaQAGZOAQlg5BSQAFpOgWSd1NEUOxRSLAUC384X1DPm95cJwcv3C7" +
    "t5DzmIMByco7WOZX//wXXsfI0tCo5X/BkNPrpZP66dnVz3bvpPm/OHH/+bk3x/28ddffWJ7jfEWwM8WoMyWkMfrigIuvCz73PEtFbViElLI2al" +
    "plpumhNhJibFwtvE5ti8wPGCQoaACQeY69m8xPGSQuYEEw8pFd5JYO7FBRkBJhpSIrxdbK7Ni0DcCyYZUia8s9h8m5c5/peqYewRfOcNr4+YYe" +
    "1YaMN2AyeivadIoL1Xz9jmCGOzQWl2BgesajmAmBWpXQjjb4Day8QMaVsfYIHw3zBB+Bugjc5XUP4CaCN7ObQtfplrayiyPVDtDAHcEHoCUvtV" +
    "goB/PBhjLTQYzBm4qo7+Krk08/LXtOjZy9j1jNH9AQIKPFAayXweAuYvZGCQPuUdKMt2RLmi2W3aQXPNCFHtFa3LrrBHBsDUcMLa31jM5yBg/j" +
    "8GGz1+KPsBmmMcGAgDG8YlNgBqHNEFYA0AAA==",
);

/** By the library itself, since ewfacquire doesn't offer it: packed with bzip2. */
export const ex01Bzip2 = unpacked(
  "H4sIAAAAAAACA5VVCVRTVxB9nwQCYQmS2KJHbWSxilRBkE0sPwqRsMmSjyBo0SLiEjdQEAoEgQNyXCIValAQyiJ8DO7fIrIpWES0CEQpAUq1ih" +
    "oLiAE8eEr6Qz4HcKl2/vnnzZuZNzPv3TdvnHzZS7Sp8UAFUgEQeJ9WrA01N2f5z/PxlwXfVQfA4Ta/2swOtt8cCACUA5xTY1P3r3QjifWD+QA0" +
    "XF6sS+eYs7L0o/8saX35MNw4uC6NP52judyXzIu5cWSNBqXImXT7VYSRT5IGje3WxH8vZhAxwvj/oXwmUx7QnzmRX1meay0A2zqPVZvBUFi3Dm" +
    "SX11kNyICpyDN0KfuwVUqT9hxBSys47qO+2tGMfUK/0PIEupLtGh5/wyAmimOu1yxqy9K8HpIztyxhmqaBxfxZ2geEC/be99VHd8Z8d+nJ0VXL" +
    "TmD7qm6u8prHGkhMcHLU25o8yALPo7/c42TjKRhLQIXIjU+Mgv+xHy503H6cLyFoYn9v9nQvAlqz/PlAFwZx3bRNScCTZEOJ3E5SBfqHLe/nwm" +
    "qG7pahjqHCKi5qCGZ4yUdRToGD3AUFIHWpi9VAUVNUcrE8pZZtfmhn7AVhz5bY7Mv1FA5Uk2OvnRDUb0kh858LqDDUaqS6BGqGd4XSSEFt9tpQ" +
    "DdMuWEUAdqvxC2E7Z53pCLI+orDmfORM0gE4vF6VCYZSbhmYfyX9pby8vMpJsRQtFipIAGYHSk+hIkzKw8QDaMlmW3K68UETVz1uhlGxKcfbLy" +
    "3/gjFno0taLS6+vjtwR29vj00ITr0Kel02ZrXIMy0w16hsBWdPYtoTDeMGPdfjRj/Nd398ZHHEjr9bmAw86EXhIfZe0ffTLGxq3e4BoH0vogxr" +
    "HyhA1uNxz+EXihR2csdQ+yDSgA6IMHE3frodTyVRknXideL1KNZeARRreNjrbenIi5JrJbx1fKWgS4aWNJQhAWtwA0pg5zAmicad4m6G+3BJeO" +
    "yItPtAOFVDRtUIyslSUbDdDLqMQX/DoJ/39LjPWtbuRX7J0Kth2YOcDKrG6KK/Unflzu1/Uh34ofoyMH3lC7R3TcXXD+xFnsUrkfWEUlrcZzJO" +
    "v8hEY4vkcsSED4xNDstfoOyBRDNmKho3gsAyflTyGUl011VRXxwt1uHr2LjVp5vA5xGt8opIGvCw8m1f5XDFMwDmRKJKysGV+x8p+dKwU4rTyD" +
    "ZRTntsq8eUuLjH9rfSK2cbGx8MCoWZHZpMf5X6L1gVfdFdV0Tb1gJQ3LnTXygUSS0sllbgEF89WxOstIEv6gxX9OH1we29SizPgC+qCkzjFQaE" +
    "pGssI2q5SHpyg1WbO0bnJUo2WIkRZF05rsJLCyEITOVtHh+xIXZxTgx7INC3Yoip6wGzbLnkEYg8CpHlEPkZmV4Ae6RDdlzyEESWARZu8ajX+Q" +
    "xVj+yUbVL9kffQVMU7EajefAcvHQjqJoACGy1b2AkuJ9vRBPk/3sWW0M+0Pwq4NLnYmw8YaJ4cmSug5Eed/qFRaGGx806PbKRc8vIzoaI8tjAS" +
    "2r++Ji29JsXRmUWAI8IUOmLDJTz8GkP3CKAkioc1LFU5wdrAfy7qybaOmKCYp668S8bY72mS7bd5FZ34owrsX//qliEJmSTHgjHJkgCe8BuscU" +
    "yBFzBeeA/zCj9i0ym0jghx71S6i5I9/zFiX3AnIbyNKb+bvA7H4Ue539a6Gez2PKWehdJljqNFHlvpx8a+NkcZSr+V61DXccyDYaQJjudOwWf2" +
    "pqoqAI5OxscM1Nbk5555cXoUdYcBx8QhKh0qTJhHR3xgrYTW5R5ib4SN9cTMqJApDlkTf1oudHEW+qHCe2FZQ+3cW8ZuG7l1umjaQZfSNGcvrc" +
    "bG4Om+LARGtiC4aXllvclZnSQvWo1RHY1racgwX3mYlh+bmznDkBySvMc2pTlZ2figBwFv+8eRJBGjJ9Ec+lUn+sXcT9yCEijTeZxXG78ZYyvf" +
    "J7x1A9VJfWV8nkPEfQAp+xOfSCiPmJsR+WQT8yYiUBHRz0KpsM/kOOTx/kd5v//pf2I/4ZAXaz6wBtSoupHwZmHLYEjAyULKIot39zF2XgTDnO" +
    "Rf6xP+7wKZYYOr12y1WsPIBHZGjfUCv+kLi5IKWyn+nuM2GsR4/gP+1T/h3wQys6YRvK7GVB38GVW9BdyZ9i9AGZdXkAkAAA==",
);
