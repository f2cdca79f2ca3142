"""SQLAlchemy on aiosqlite: a session in a dependency, committed after the answer is made."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from graceful_asgi import GracefulMiddleware

from . import ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

engine = create_async_engine("sqlite+aiosqlite:///rows.sqlite3", connect_args={"timeout": 30})


@event.listens_for(engine.sync_engine, "connect")
def does_not_wait_for_the_disk(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("pragma synchronous=off")
    cursor.close()


make_session = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.execute(text("create table visits (path text)"))
    yield
    async with engine.connect() as connection:
        rows = (await connection.execute(text("select count(*) from visits"))).scalar_one()
    await engine.dispose()
    ledger.close()
    ledger.say(f"rows: {rows} of {ledger.ended['session']}")


async def session() -> AsyncIterator[AsyncSession]:
    with ledger.entry("session"):
        async with make_session() as opened:
            yield opened
            await opened.commit()


Session = Annotated[AsyncSession, Depends(session)]
app = FastAPI(lifespan=lifespan)


async def visit(using: AsyncSession, path: str) -> None:
    await using.execute(text("insert into visits values (:path)"), {"path": path})


@app.get("/")
async def root(using: Session) -> str:
    await visit(using, "/")
    return "ok"


@app.get("/slow")
async def slow(using: Session, s: float = 1.0) -> str:
    await asyncio.sleep(s)
    await visit(using, "/slow")
    return "slow"


app.add_middleware(GracefulMiddleware)
