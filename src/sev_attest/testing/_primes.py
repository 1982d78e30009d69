"""Primes of the test authorities' RSA keys, in hex, by the keys' size in bits and their role.

They are not secret: no root with these keys is trusted unless a user names it. They are fixed so
that a test platform is the same on every run and needs no slow key generation.
"""

from collections.abc import Mapping

# fmt: off
PRIMES: Mapping[int, Mapping[str, tuple[str, str]]] = {
    2048: {
        "ARK": (
            (
                "c020aa87157df62d0783d768a9db53c5790ec5a538a458be0d5dc742325f022aca119537b8aae565"
                "c6d3c63e22877a2aec8ed7ad7d7e56585c08dc8608e02ee3ca293c8784d0a8f10f15dcf5ec491eaf"
                "6fdf841471ddcfceac4cc8cdfd6bff552ca37a25efe35f7e961fba907173a6db21a40c96b3f0e37a"
                "7b6cb9b6c5645a29"
            ),
            (
                "c018786c8858de8c2ba88b243f0c6ec1f9ae72beee1fb380e53f93e2db8aa9c72f014c5c6842013e"
                "8772c0fb396922c0aec24b0542da9d5f6e237a9caa452f3496c06cc26f86451aad434de694586cd2"
                "3bc1a51109a84519b34a494afd14a8da1b3925bbb1d37389cd709f95f7b28346a0130a192bdbc51e"
                "2575d4b34c8ff86b"
            ),
        ),
        "ASK": (
            (
                "bc86de67c41d95783744277d6854283b22d552e04c6bc4c1aff037c6f41f21dcd95fa3fe91a5d63d"
                "d5bca61e1d746cd7b79758d48f0d3ff3eb5bab002e9a068b8925f7a63a52d4756da80c567d0d5f21"
                "e8156bd3cdacd6ccc5839733c4c800de32d05007983e008b047c6c767b406ced406a95fc1151f6c0"
                "0f6293b798d90d2b"
            ),
            (
                "b52898e6faba5655519b5f8627d5b92bf7760d44bd2bfd9316ea55a1ef5225bd13382e33117b5f7d"
                "ac068903b961713ad74228c6449629a3542471b1f18f3ef144a1da2e75d9d8235fb1f26960f7d3f0"
                "928216fc38c1b0af069af9d199c7a86c4086d89447f0b9a376d60f93436f419944a066974e50a256"
                "75f4b80311d3eff5"
            ),
        ),
    },
    4096: {
        "ARK": (
            (
                "e1df7ba08a6300196d1671efcdd31eaa722751d614ca5851c64d496700cdb7f82dd6e436216c75d4"
                "3fce1d8e403eea23c797db639d7c0714e88b33ef1ea83bce9c6ae8ca13dc6394a7375e2b27096f23"
                "c59cefdf4a7cb70944871136f343d369529cfa3ae8bf1119604f34e2439b3381ec5d0409fd7b00c4"
                "ce0f840dc5b64e6ed02331ce4a7aa963f3626a453d53863e9580c4b33ca51a4ea909cd8e59d664f4"
                "c7c7b41577be4e98f315e5132785e1b13e171fd0bc2161f7dcfc1555f903d14c3678cdf799d7d0ce"
                "3bea350eaa94d5459691f0bd8630e671cd7701784c2266fed4f3938fb38c4ded1ac98e446a662b8c"
                "82a1e2e3acf28beafa516fa3baf5676b"
            ),
            (
                "d58a9325867383f9d7959b833d23199f6ab8ad262223d3f0968566558ad208eaebf60bdfab18c397"
                "8838e1fae8e68f733a8134631268648b2da583365e7ebf39e46025ed73d63d43b575000bd0d7a318"
                "824d1cf1e981e39a0fb13747c3c5c71531ce64680a325cc21d0a4327da25946f1103eb8eb912d924"
                "6ccd5c78623af74a306807826ab38453bf37b4eafdd77e5e510efddcc498010406ee42aca4320c7d"
                "543e19d9b12e2e05e5af1bb8efff0109c2c539b4fdb1e5dd8cc2a6914754764d0f55b91565a89126"
                "b2011f03183a7f632ddb6cdc30a40b664972dc6daf1990e4c416f24007fe95a7a727db52067ab34c"
                "54c1f852d5ce9461c34a327b7acf2723"
            ),
        ),
        "ASK": (
            (
                "d8bf7ffe4bc62414552895d50ffdb026cae69623359c81e17e25f51887bea43dc6666390d7ff8905"
                "83801a752c8c80cd74d45fe2a20f40d345d264966dfa2c37fd31c4e4986706d43fb0bff120089ad8"
                "920f096cb51f203b97709d6f878df3c22bea13b7214d25d979aa46e99e15b0fb9dc99d2c360ca8a1"
                "ff45067d5a8bf9e06591c4f3e66aa6fd38cc6d678d2fa5c254670aa0589d0dd1ac37b5f4cc60b216"
                "602d07b6f564076fe3f89ca0a61528aa9f4c03e5ef8291263c185201129bedeab537a35d21355cc7"
                "b18fb5f7aeb9f16783661448429e7e967942615f2e14dd557614efb605d75978b02a32d08a375da1"
                "5abfc69b9e94b1e15677e0d750bae155"
            ),
            (
                "b630b1f195b9898fb7ef560832a1c2a4e52a734366ed1e54f2e920bc1f44b6d2014e73dc33aa7651"
                "7865cc3ca2cad677e71052ee69c3b54890ea2489a3e9a15959b947023f5249a0a71dd1553e8a1c75"
                "2a002a55942d5857ed1db7265bd1a1c927cac5413ae99e3d507a9814914329a7cb6e38ea89a2e480"
                "5ea8388fa378bdf00596bc0ba07d62db3cc308ea6a2b9aba2a09a525f46f0c762001002bb299e0de"
                "68d77ce227252fc325f8a6fc577df9ce95fe554f3e83bf76a82fdf9ecc288c59837c6dcc5cfdc5c1"
                "4d9d043bfe8f1ebb05935cb68d1581a3f7fc82b41d0ae37cbe9eaa34c219a626762c3adf415e957e"
                "5e19b5830b4581297c433c1383b8acc7"
            ),
        ),
        "ASVK": (
            (
                "cb546c121588404c8dff209cc7925fa04babfca0549ce384a507d06ab2791051b7505c1ee117e43b"
                "0a1cdbd44a673f304af628c80c6ddd9ab12e35bb7aa99074bd5e9bf2322c931491e6db1b7f282454"
                "fad7481d38c0ffd412225eee3a0155e55b467821cdb7275dc97622de4516b0bc9af140e76eb6e1f8"
                "075c095a9218b4fbb99dd76277b78cf319a17fcfdac0976e61f46b7e47373872120b0c0aaca02e1f"
                "14e05b6bfb3584a088219cd5a4e8917868f3e7825094529038e2f034a1b0287278a21e48af23335f"
                "0d07bd4327eaddb28bb893dded12b3cd6bea8fef645762544c0ea328c01bb56e6c852e777560ad76"
                "89dc52005c1c1e6fd986f6b832e9b2a9"
            ),
            (
                "d9a6836e0f8f6d53f7112d0f020da1c38f5d2ba28992b46d08dfee78778af6b91b8f77cfe22b8035"
                "90f05842e01807365c311ca4a8d9ee3e821033feccf40cb8c1831241c38531a76d06f17241f9245f"
                "0ddb0625e806041e5d6478c335699514cc4791ad0995aec61825a1bcfba698de00f5bcb016dcbbaa"
                "b34574b00ef38be190241df75549eb6b9a252833067ccf0381c5f91c8a1d135714eed9f6927a554b"
                "b920f933b92185a6680b4d802b851a74384eb6761f34f911b61cecbe262e734008c2349c6b674af2"
                "2a73de5ba31fb758f37a4b014d934692a13f6d616e18cc6e0783b3221cc8eaeb95c55a1bec1f6be5"
                "3b3339ab1564b4d1e19fef7f330104a1"
            ),
        ),
    },
}
