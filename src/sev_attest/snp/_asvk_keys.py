"""AMD's SEV VLEK keys (ASVK) per product, as figures (hex, big-endian).

Published by AMD in the certificates SEV-VLEK-Milan, SEV-VLEK-Genoa and SEV-VLEK-Turin, at
https://kdsintf.amd.com/vlek/v1/PRODUCT/cert_chain. The comments are what a reviewer compares: the
SHA-256 of the key's SubjectPublicKeyInfo, which the tests recompute.
"""

from collections.abc import Mapping

ASVK_KEYS: Mapping[str, str] = {
    # 66450a123ea5876206df67f2514a4fea224c0f63b18313423078b0edc4535e33
    "Milan": (
        "d44516933e454cfcfeb964f68421328ac6a6f0546e5d90264b797ead781209e4b5434fb5a2572715"
        "22698b07ecb1f868bad26a78fca272ef8e8645f5df53cc78efd53ad1f7ba92b860d266ab7e88269e"
        "d95889b99cad9f24d9181075b49bf35770803d5368879796c043971b1a9f7bfc568e2785661a84cc"
        "57ae7c628c7fa6516665115f45cb30da1c8d86a525d60cdda6720880f932814a2f14481a6b42154a"
        "018b1d085942279b34b2d255645545ebded2df78ce544845176bcfce1c7243fd1fd0d301433241ac"
        "5265b3c834a6d5e933e6b6bc0057d50fd50ab8d7cc67f48f82d12b16bad3ffe52d4e88bf0e4f3438"
        "0af81b1ce7ddd85df256fe310c1cdae127a51768a0a037fe045e1723f2081c92f6379b8acb7fa091"
        "20765e5ea9ae8860566a9116f056f4e4c211adf65a15eed2dd59d5a6c42836772e966df7f0ab83ac"
        "f23e95c32d1fed2c71e949a3d18fb093cc789e28c4f3f90e91ac209070719f6800ff113358e7a687"
        "bcd2516606f35c3509be72ebddd6323afbe7fc3b4a8424a2989ca79fb2de9f802b0d5415c1744f7b"
        "7851fdab0213609a8d3ee4182d403ad53342e20a652d83d1093be20dbdec984b1e91019508b28d12"
        "7e2c2599371f6e25c8b11b2cdabfa7e2396c7853cb96851cc7b3c9ef0c075c4b82d6df5b4f940f41"
        "78e2bf0468a6413bbb84ce4c0c564bd02f5d58ae69b825097b1e88daf4aabf27"
    ),
    # 7d1633252ebbadaa75f96e9b4e6f7d43a90ceb3f843937482630f8da2459264e
    "Genoa": (
        "ccbdbfc62847b1c129c52dfe3ac419a40b8d20919211066b92858fb6a28c8e364ec9730c44702179"
        "39b9e848b431bf1325995b1834b9c7f01d6e8c2cb469a91ea876cef4af8d93bb578bfa16df38a7bd"
        "4fe865df395110802b9ab62b337c8c05ad1424fdc994ec7b8969d06ae97b5813ea8124c8eeb3c0b4"
        "5b05bf21663d8faa4d6c40354a752f560eadf3dcdf13e01c07950308aab4f71eeac3eacfb7da53a4"
        "4721d1fd5b1dd445265a605864ead36a211fd6d3fba6aef243e9bcc6b79b6a7ccdd208aadbae486e"
        "acac88a6ae9b76e25b2be2d2e1406eb947f45b5494fd32c2b850ba5b0143b93707652f06e7a4b587"
        "894c2862bc92303f25df1443be13e6227957105128f256a1718965c6224947ca2aa80eb1de33c52a"
        "691f84481a41e7dc9f83fc9c0e1249ca80a0b8a19fbe62883b54dbe66590f9ca81c36ce54d4b7b8e"
        "35ca97a7da7ec13a7472866c3201404693739c3171ec27a286a432724d509a0b77d65f77b1e08bf8"
        "2e4b8a440e8ef72bb7cc73f6dcdfee6c4f3f63291f7c88cc6ed068380cdd5829fd944e1a9a8e1567"
        "ef1ec08bad6406260b94c840efb0594a8a62bd220286dc70c9d97498d43918d5a2a550f9d2ebfbfd"
        "68b64dfa81f3dcd0ba6685664a7c05c5f6c82f62d42371a47dc251abf32491b59d98256a1fb91ef3"
        "8181493c45d1c009db011ff4e61066a20ec232dd45f582929a4bba25f45e718f"
    ),
    # bfc441408b2f806c5dbf180bd8920e6e60dd404d82141780d85dbf962954d386
    "Turin": (
        "a63aee8b89746688048747c37557c9e2e9e8c061a8964db05f2ce36e30bf7e7aa5845aa2163d4948"
        "a764612bf33d57e00d1d0c53658b972b6b006a8e1d805d938328cf7c474d726eb3be4d79fd04059a"
        "4693d3383d0185fa74ea622fa10e0baad78c1050496d37dc06ba79d479a333d1eea17c26ac0debe4"
        "ca920b329a27bd3bda338f51022a42bd38263d14e4400f218e5ded03a47b4bf1ca4e7ebf4374fbe0"
        "0d017f280ae3d2cb91d1c5d395a8d2967daa63f2862d1187d7a96342fefd3d9ed7b7e88567026af8"
        "04f8a17918ee5720dcee9f02a89420b21f7f77d220266f5befe6fe0f8a69c6b1f1f889ce24200a51"
        "d61640a54dd81b7a9413ce2a91be52100490b136424f426ffc0c42f52a39876c2b695cd6cfa1afa4"
        "f1c4b512afb9ee6f7a19303e3162a49313e59ec298db9773ed2571549930749bb301521ca2ada781"
        "74503a0f9ee216c3f7631838e41974bd5b9336377cd549b9fde1c27108ccce4f320b85c5ff9496ad"
        "a28b257f1beab9c147f0fa52f7104c86e3787d33e5364fe855b43ac3ca7110c89ba342bc43e80eaa"
        "acdd566ea2ee3a2da1bb2e6311f51edb63b1ceb5bd2b244834f82643e3a935a2c8e9ac148fba39bf"
        "e1c9afdfaa97b410fcbaf133e4f3908e0bbbaa34cceee7cc5bd2e02db746de7a30f1dbd99145b88f"
        "34be6d9f02bd2859990e9799592660cef9f62be4904caf3464a9fc62ad9229f5"
    ),
}
"""Modulus of the key by product; its exponent is 65537."""

SERIALS: Mapping[tuple[str, str], int] = {
    ("Milan", "ASK"): 0x010001,
    ("Milan", "ASVK"): 0x010101,
    ("Genoa", "ASK"): 0x020002,
    ("Genoa", "ASVK"): 0x020101,
    ("Turin", "ASK"): 0x030001,
    ("Turin", "ASVK"): 0x030101,
}
"""Serial numbers of the certificates that AMD publishes, by product and kind: a revocation list
names them. A reissued certificate of the same key has another."""
