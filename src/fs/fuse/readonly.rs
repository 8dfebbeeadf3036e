//! Everything that would change something: refused with EROFS, one line each.
//!
//! fuser's own answer is ENOSYS, which a program reports as a broken kernel. A macro, for a trait's methods
//! cannot be split over two files.

macro_rules! refusals {
    () => {
        fn setattr(
            &self,
            _: &Request,
            _: INodeNo,
            _: Option<u32>,
            _: Option<u32>,
            _: Option<u32>,
            _: Option<u64>,
            _: Option<fuser::TimeOrNow>,
            _: Option<fuser::TimeOrNow>,
            _: Option<SystemTime>,
            _: Option<FileHandle>,
            _: Option<SystemTime>,
            _: Option<SystemTime>,
            _: Option<SystemTime>,
            _: Option<fuser::BsdFileFlags>,
            reply: ReplyAttr,
        ) {
            reply.error(Errno::EROFS);
        }
        fn mknod(
            &self,
            _: &Request,
            _: INodeNo,
            _: &OsStr,
            _: u32,
            _: u32,
            _: u32,
            reply: ReplyEntry,
        ) {
            reply.error(Errno::EROFS);
        }
        fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
            reply.error(Errno::EROFS);
        }
        fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
            reply.error(Errno::EROFS);
        }
        fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
            reply.error(Errno::EROFS);
        }
        fn symlink(
            &self,
            _: &Request,
            _: INodeNo,
            _: &OsStr,
            _: &std::path::Path,
            reply: ReplyEntry,
        ) {
            reply.error(Errno::EROFS);
        }
        fn rename(
            &self,
            _: &Request,
            _: INodeNo,
            _: &OsStr,
            _: INodeNo,
            _: &OsStr,
            _: fuser::RenameFlags,
            reply: ReplyEmpty,
        ) {
            reply.error(Errno::EROFS);
        }
        fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
            reply.error(Errno::EROFS);
        }
        fn write(
            &self,
            _: &Request,
            _: INodeNo,
            _: FileHandle,
            _: u64,
            _: &[u8],
            _: fuser::WriteFlags,
            _: OpenFlags,
            _: Option<LockOwner>,
            reply: fuser::ReplyWrite,
        ) {
            reply.error(Errno::EROFS);
        }
        fn create(
            &self,
            _: &Request,
            _: INodeNo,
            _: &OsStr,
            _: u32,
            _: u32,
            _: i32,
            reply: fuser::ReplyCreate,
        ) {
            reply.error(Errno::EROFS);
        }
        fn setxattr(
            &self,
            _: &Request,
            _: INodeNo,
            _: &OsStr,
            _: &[u8],
            _: i32,
            _: u32,
            reply: ReplyEmpty,
        ) {
            reply.error(Errno::EROFS);
        }
        fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
            reply.error(Errno::EROFS);
        }
        fn fallocate(
            &self,
            _: &Request,
            _: INodeNo,
            _: FileHandle,
            _: u64,
            _: u64,
            _: i32,
            reply: ReplyEmpty,
        ) {
            reply.error(Errno::EROFS);
        }
        fn copy_file_range(
            &self,
            _: &Request,
            _: INodeNo,
            _: FileHandle,
            _: u64,
            _: INodeNo,
            _: FileHandle,
            _: u64,
            _: u64,
            _: fuser::CopyFileRangeFlags,
            reply: fuser::ReplyWrite,
        ) {
            reply.error(Errno::EROFS);
        }
    };
}
pub(super) use refusals;
