-- A ledger of the first schema (version 1), as sev-attest first released it. Do not make it anew:
-- ledgers of this form are kept by owners, and every later sev-attest has to read and honour them.
-- The sessions are those of TransportKeys with tik = bytes([n]) * 16, n = 1 to 6, in this order:
-- released (and tried for another launch), measured, failed, closed, expired, created.
BEGIN TRANSACTION;
CREATE TABLE sev_attest_event (
        seq INTEGER PRIMARY KEY,
        time TEXT NOT NULL,
        session_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL,
        previous TEXT NOT NULL,
        hash TEXT NOT NULL
    );
INSERT INTO sev_attest_event VALUES(1,'2026-01-02T12:01:00+00:00','35a09aa6487b08f29a1de3d2fe17861850a5146cebf1509db8a3da23df5cc402','created','{"name":"vm1","expires":"2026-02-01T00:00:00+00:00","note":""}','0000000000000000000000000000000000000000000000000000000000000000','ed15a2c4c820f98a45772d62a8602c9356447dd2e05aff01401accf9322a4ac9');
INSERT INTO sev_attest_event VALUES(2,'2026-01-02T12:02:00+00:00','35a09aa6487b08f29a1de3d2fe17861850a5146cebf1509db8a3da23df5cc402','measured','{"measurement":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v"}','ed15a2c4c820f98a45772d62a8602c9356447dd2e05aff01401accf9322a4ac9','561284c204c576863bc9aad982e67274e39a41f31c802cd9acb64a87dc787072');
INSERT INTO sev_attest_event VALUES(3,'2026-01-02T12:03:00+00:00','35a09aa6487b08f29a1de3d2fe17861850a5146cebf1509db8a3da23df5cc402','mismatch','{"text":"seen"}','561284c204c576863bc9aad982e67274e39a41f31c802cd9acb64a87dc787072','b6d9f4eafaf816d4e69251ef7e8b79ea0e6f76ed3dfa661722a4e9687f7b0051');
INSERT INTO sev_attest_event VALUES(4,'2026-01-02T12:04:00+00:00','35a09aa6487b08f29a1de3d2fe17861850a5146cebf1509db8a3da23df5cc402','released','{"measurement":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v"}','b6d9f4eafaf816d4e69251ef7e8b79ea0e6f76ed3dfa661722a4e9687f7b0051','cd258f442838fb245e15a98dfb97d2ca653beb6843d55845357e055066fcd284');
INSERT INTO sev_attest_event VALUES(5,'2026-01-02T12:05:00+00:00','35a09aa6487b08f29a1de3d2fe17861850a5146cebf1509db8a3da23df5cc402','refused','{"step":"bind","measurement":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}','cd258f442838fb245e15a98dfb97d2ca653beb6843d55845357e055066fcd284','4a0b6b63b4c0b8e9a55d09039341c046e1bc428e6781dec3084959ad7ad3d2ca');
INSERT INTO sev_attest_event VALUES(6,'2026-01-02T12:06:00+00:00','fe4c4d8551cb45f38aff23df3db200aebfa49ead414ca4e9ff02b65b52544ba7','created','{"name":"","expires":null,"note":"made by another tool"}','4a0b6b63b4c0b8e9a55d09039341c046e1bc428e6781dec3084959ad7ad3d2ca','d35ccb681a56896c0e43638145d964eb49fee6e6510ac6bc3c6a4ce4c8762000');
INSERT INTO sev_attest_event VALUES(7,'2026-01-02T12:06:00+00:00','fe4c4d8551cb45f38aff23df3db200aebfa49ead414ca4e9ff02b65b52544ba7','measured','{"measurement":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v"}','d35ccb681a56896c0e43638145d964eb49fee6e6510ac6bc3c6a4ce4c8762000','9d6360dbb3e319602ce49e87b8dedf873441bb5408f7f7c86a57f6b67228dc32');
INSERT INTO sev_attest_event VALUES(8,'2026-01-02T12:07:00+00:00','e57099f60f376914affbf36f5c60f0623f1e268807f6445d6b2fbda7a30a8464','created','{"name":"vm \u00e9","expires":null,"note":""}','9d6360dbb3e319602ce49e87b8dedf873441bb5408f7f7c86a57f6b67228dc32','db0f03af3220b5d9f05faad5f7041d0e4aa3ffdff42dd2d2f49f9e75632dd9f9');
INSERT INTO sev_attest_event VALUES(9,'2026-01-02T12:08:00+00:00','e57099f60f376914affbf36f5c60f0623f1e268807f6445d6b2fbda7a30a8464','failed','{"note":"the packet did not get out"}','db0f03af3220b5d9f05faad5f7041d0e4aa3ffdff42dd2d2f49f9e75632dd9f9','c955cf682552793d6c064fb9fe54514b88666c0f8b1c7749594b24ca9cb5f64c');
INSERT INTO sev_attest_event VALUES(10,'2026-01-02T12:09:00+00:00','5d467800960e7938d007f47326a28544483d4f8b7a762c7f6f29326c07d9e2b3','created','{"name":"","expires":null,"note":""}','c955cf682552793d6c064fb9fe54514b88666c0f8b1c7749594b24ca9cb5f64c','a3b47ddd6eea9ae1bfbd00f07ac0b040e83c7e555a143672016e1f57862b37c0');
INSERT INTO sev_attest_event VALUES(11,'2026-01-02T12:10:00+00:00','5d467800960e7938d007f47326a28544483d4f8b7a762c7f6f29326c07d9e2b3','closed','{"note":"not needed"}','a3b47ddd6eea9ae1bfbd00f07ac0b040e83c7e555a143672016e1f57862b37c0','7b7ebba340cab5d27a5e73cae1a96b019a2f122b1dd0e36eff754adbaf43150b');
INSERT INTO sev_attest_event VALUES(12,'2026-01-02T12:11:00+00:00','25d524d2c913032b1b0d047071b5832334d58030060ee04d431e33f2c618934b','created','{"name":"late","expires":"2026-01-02T00:00:00+00:00","note":""}','7b7ebba340cab5d27a5e73cae1a96b019a2f122b1dd0e36eff754adbaf43150b','b845a931fc372ff4fe0601432ae4d6ff16a37eb53c31cd19fb429b42acdffbba');
INSERT INTO sev_attest_event VALUES(13,'2026-01-02T12:12:00+00:00','25d524d2c913032b1b0d047071b5832334d58030060ee04d431e33f2c618934b','expired','{}','b845a931fc372ff4fe0601432ae4d6ff16a37eb53c31cd19fb429b42acdffbba','9d22021c8ed8ceff2b4efafdff39ca413ed0cec42f100930df38cd17bead8820');
INSERT INTO sev_attest_event VALUES(14,'2026-01-02T12:13:00+00:00','a1f4ea972486bdef76d48798df297e728d23ef594d519e4d36a7f007dab37bcb','created','{"name":"new","expires":null,"note":""}','9d22021c8ed8ceff2b4efafdff39ca413ed0cec42f100930df38cd17bead8820','9f9a96d2c0b5a3de47edf43fda2ccd06ab40f872fac0ad58689e81e438e1bf12');
INSERT INTO sev_attest_event VALUES(15,'2026-01-02T12:14:00+00:00','a1f4ea972486bdef76d48798df297e728d23ef594d519e4d36a7f007dab37bcb','refused','{"step":"create"}','9f9a96d2c0b5a3de47edf43fda2ccd06ab40f872fac0ad58689e81e438e1bf12','040a67639548a29cc927dd96b27234928ed9f57f398d48d291531fd6e236cd61');
CREATE TABLE sev_attest_ledger (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL,
        events INTEGER NOT NULL,
        hash TEXT NOT NULL
    );
INSERT INTO sev_attest_ledger VALUES(1,1,15,'040a67639548a29cc927dd96b27234928ed9f57f398d48d291531fd6e236cd61');
CREATE TABLE sev_attest_session (
        session_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('created', 'measured', 'released', 'failed', 'expired', 'closed')),
        created TEXT NOT NULL,
        changed TEXT NOT NULL,
        expires TEXT,
        measurement TEXT,
        note TEXT NOT NULL
    );
INSERT INTO sev_attest_session VALUES('35a09aa6487b08f29a1de3d2fe17861850a5146cebf1509db8a3da23df5cc402','vm1','released','2026-01-02T12:01:00+00:00','2026-01-02T12:04:00+00:00','2026-02-01T00:00:00+00:00','AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v','');
INSERT INTO sev_attest_session VALUES('fe4c4d8551cb45f38aff23df3db200aebfa49ead414ca4e9ff02b65b52544ba7','','measured','2026-01-02T12:06:00+00:00','2026-01-02T12:06:00+00:00',NULL,'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v','made by another tool');
INSERT INTO sev_attest_session VALUES('e57099f60f376914affbf36f5c60f0623f1e268807f6445d6b2fbda7a30a8464','vm é','failed','2026-01-02T12:07:00+00:00','2026-01-02T12:08:00+00:00',NULL,NULL,'the packet did not get out');
INSERT INTO sev_attest_session VALUES('5d467800960e7938d007f47326a28544483d4f8b7a762c7f6f29326c07d9e2b3','','closed','2026-01-02T12:09:00+00:00','2026-01-02T12:10:00+00:00',NULL,NULL,'not needed');
INSERT INTO sev_attest_session VALUES('25d524d2c913032b1b0d047071b5832334d58030060ee04d431e33f2c618934b','late','expired','2026-01-02T12:11:00+00:00','2026-01-02T12:12:00+00:00','2026-01-02T00:00:00+00:00',NULL,'');
INSERT INTO sev_attest_session VALUES('a1f4ea972486bdef76d48798df297e728d23ef594d519e4d36a7f007dab37bcb','new','created','2026-01-02T12:13:00+00:00','2026-01-02T12:13:00+00:00',NULL,NULL,'');
CREATE UNIQUE INDEX sev_attest_once ON sev_attest_event (session_id, kind)
        WHERE kind IN ('created', 'measured', 'released', 'failed', 'expired', 'closed');
CREATE TRIGGER sev_attest_keeps_0 BEFORE UPDATE ON sev_attest_event
            BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER sev_attest_keeps_1 BEFORE DELETE ON sev_attest_event
            BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER sev_attest_keeps_2 BEFORE DELETE ON sev_attest_session
            BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
COMMIT;
